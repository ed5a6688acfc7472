"""Launches the kernel `preprocess`. Twin: `twins/preprocess.py`."""

from __future__ import annotations

import numpy as np

from salema.kernels.arrays import Array, Launcher, address, check_apart, check_array
from salema.kernels.compile import Variant
from salema.kernels.errors import ArgumentError
from salema.kernels.tables import LINEAR, MODES, AxisTable, ResizeTables

VARIANTS = tuple(Variant("preprocess", {"MODE": mode}) for mode in MODES)

_THREADS = 256  # one per output pixel


def preprocess(launcher: Launcher, source: Array, out: Array, tables: ResizeTables[Array]) -> None:
    """Resizes a source frame to the network's size, in one pass.

    Shapes and types are those of `twins.preprocess.preprocess`. `out` may be one frame of a batch. `tables`
    are `tables.resize_tables` of these sizes, with each array on the device.

    Raises:
        ArgumentError: an argument has a wrong type, shape or device, takes 2 GiB or more, or overlaps another.
    """
    _check(launcher, source, out, tables)
    height, width = tables.network_size_hw
    arrays = (source, out, tables.rows.spans, tables.rows.weights, tables.columns.spans, tables.columns.weights)
    sizes = (source.shape[1], height, width, tables.rows.weights.shape[1], tables.columns.weights.shape[1])
    launcher.launch(
        VARIANTS[MODES.index(tables.mode)],
        (-(-height * width // _THREADS), 1, 1),
        (_THREADS, 1, 1),
        [*(address(array) for array in arrays), *(np.uint32(size) for size in sizes)],
    )


def _check(launcher: Launcher, source: Array, out: Array, tables: ResizeTables[Array]) -> None:
    device = launcher.device
    if tables.mode not in MODES:
        raise ArgumentError(f"tables: mode {tables.mode} given, {' or '.join(MODES)} expected")
    check_array("source", source, [np.uint8], (*tables.source_size_hw, 3), device)
    inputs: dict[str, Array | None] = {"source": source}
    height, width = tables.network_size_hw
    check_array("out", out, [np.uint8], (height, width, 3), device)
    taps = 2 if tables.mode == LINEAR else None
    inputs |= _checked_table("tables.rows", tables.rows, height, taps, device)
    inputs |= _checked_table("tables.columns", tables.columns, width, taps, device)
    check_apart({"out": out}, inputs)


def _checked_table(
    name: str, table: AxisTable[Array], size: int, taps: int | None, device: object
) -> dict[str, Array | None]:
    check_array(f"{name}.spans", table.spans, [np.int32], (size, 2), device, alignment_bytes=4)
    check_array(f"{name}.weights", table.weights, [np.float32], (size, taps), device, alignment_bytes=4)
    return {f"{name}.spans": table.spans, f"{name}.weights": table.weights}
