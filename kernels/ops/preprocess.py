"""The kernel `preprocess` as a function: every argument checked, then one launch. Twin: `twins/preprocess.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from salema.kernels.arrays import Array, Launcher, address, check_apart, check_array
from salema.kernels.compile import Variant
from salema.kernels.errors import ArgumentError
from salema.kernels.twins.preprocess import LINEAR, MODES

if TYPE_CHECKING:
    from salema.kernels.twins.preprocess import AxisTable, ResizeTables

VARIANTS = tuple(Variant("preprocess", {"NV12": nv12, "MODE": mode}) for nv12 in ("0", "1") for mode in MODES)

_THREADS = 256  # each makes a pixel
_MOST_BYTES = (1 << 31) - 1  # offsets are 32-bit


def preprocess(
    launcher: Launcher, source: Array, out: Array, tables: ResizeTables[Array], *, uv: Array | None = None
) -> None:
    """Turns a source frame into a frame of the network's size, BGR or NV12 into BGR, in one pass.

    Shapes, types and meaning are those of `twins.preprocess.preprocess`. Rows of `source` and of `uv` may lie
    apart; `out` may be one frame of a batch.

    Args:
        launcher: what runs it.
        source: BGR, or with `uv` the luma of NV12.
        out: the frame that is written; it must not overlap anything else.
        tables: `twins.preprocess.resize_tables` of these sizes, each array on the device.
        uv: the chroma of NV12.

    Raises:
        ArgumentError: an argument has another type, shape or place, spans 2 GiB or more, or overlaps another.
    """
    _check(launcher, source, out, tables, uv)
    height, width = tables.network_size_hw
    arrays = (source, uv, out, tables.rows.spans, tables.rows.weights, tables.columns.spans, tables.columns.weights)
    sizes = (
        source.row_bytes,
        0 if uv is None else uv.row_bytes,
        height,
        width,
        tables.rows.weights.shape[1],
        tables.columns.weights.shape[1],
    )
    launcher.launch(
        VARIANTS[len(MODES) * (uv is not None) + MODES.index(tables.mode)],
        (-(-height * width // _THREADS), 1, 1),
        (_THREADS, 1, 1),
        [*(address(array) for array in arrays), *(np.uint32(size) for size in sizes)],
    )


def _check(launcher: Launcher, source: Array, out: Array, tables: ResizeTables[Array], uv: Array | None) -> None:
    device, (rows, columns) = launcher.device, tables.source_size_hw
    if tables.mode not in MODES:
        raise ArgumentError(f"tables: mode {tables.mode} given, {' or '.join(MODES)} expected")
    shape = (rows, columns, 3) if uv is None else (rows, columns)
    inputs: dict[str, Array | None] = _checked_pixels("source", source, shape, device)
    if uv is not None:
        if rows % 2 or columns % 2:
            raise ArgumentError(f"source: {rows} rows and {columns} columns given, even numbers expected of NV12")
        inputs |= _checked_pixels("uv", uv, (rows // 2, columns // 2, 2), device)
    height, width = tables.network_size_hw
    check_array("out", out, [np.uint8], (height, width, 3), device)
    taps = 2 if tables.mode == LINEAR else None
    inputs |= _checked_table("tables.rows", tables.rows, height, taps, device)
    inputs |= _checked_table("tables.columns", tables.columns, width, taps, device)
    check_apart({"out": out}, inputs)


def _checked_pixels(name: str, array: Array, shape: tuple[int, ...], device: object) -> dict[str, Array | None]:
    check_array(name, array, [np.uint8], shape, device, pitched=True)
    if max(array.nbytes, array.row_bytes) > _MOST_BYTES:
        raise ArgumentError(f"{name}: {array.nbytes} bytes from first to last, at most {_MOST_BYTES} are possible")
    return {name: array}


def _checked_table(
    name: str, table: AxisTable[Array], size: int, taps: int | None, device: object
) -> dict[str, Array | None]:
    check_array(f"{name}.spans", table.spans, [np.int32], (size, 2), device, alignment_bytes=4)
    check_array(f"{name}.weights", table.weights, [np.float32], (size, taps), device, alignment_bytes=4)
    return {f"{name}.spans": table.spans, f"{name}.weights": table.weights}
