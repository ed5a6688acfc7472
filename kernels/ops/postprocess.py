"""Launches the kernels `map_range` and `postprocess`. Twins: `twins/postprocess.py`."""

from __future__ import annotations

from math import prod
from typing import Literal, get_args

import numpy as np

from salema.kernels.arrays import ALIGNMENT_BYTES, Array, Launcher, address, check_apart, check_array
from salema.kernels.compile import Variant
from salema.kernels.errors import ArgumentError
from salema.kernels.tables import LinearTables

View = Literal["map8", "map", "overlay"]
VIEWS: tuple[View, ...] = get_args(View)
_RANGE = Variant("map_range")
_PICTURES = {view: Variant("postprocess", {"VIEW": view.upper()}) for view in VIEWS}
VARIANTS: tuple[Variant, ...] = (_RANGE, *_PICTURES.values())
_WARP, _MOST_THREADS, _RANGE_ELEMENTS = 32, 1024, 16  # elements per thread, up to _MOST_THREADS
_BLOCK = (32, 8, 1)
_MOST_BLOCKS = 65535  # along a grid's second axis


def map_range(launcher: Launcher, saliency: Array, out: Array) -> None:
    """Writes each map's minimum and maximum; both are NaN if the map holds a NaN.

    Shapes and types are those of `twins.postprocess.map_range`.

    Raises:
        ArgumentError: an argument has a wrong type, shape, device or alignment, or overlaps the other; or the maps have
            no elements.
    """
    check_array("saliency", saliency, [np.float32], (None, None, None), launcher.device, alignment_bytes=4)
    check_array("out", out, [np.float32], (saliency.shape[0], 2), launcher.device, alignment_bytes=4)
    check_apart({"out": out}, {"saliency": saliency})
    if not saliency.shape[0]:
        return
    count = prod(saliency.shape[1:])
    _check_not_empty(saliency, count)
    threads = min(-(-count // (_RANGE_ELEMENTS * _WARP)) * _WARP, _MOST_THREADS)
    launcher.launch(
        _RANGE,
        (saliency.shape[0], 1, 1),
        (threads, 1, 1),
        [address(saliency), address(out), np.uint32(count)],
        together=True,
    )


def postprocess(
    launcher: Launcher,
    saliency: Array,
    limits: Array,
    out: Array,
    *,
    view: View,
    frame: Array | None = None,
    colours: Array | None = None,
    tables: LinearTables[Array] | None = None,
    opacity: float = 0.5,
) -> None:
    """Draws a map, in one pass.

    Shapes and types are those of `twins.postprocess.postprocess`. `map` and `overlay` need `tables`, `overlay` also
    `frame` and `colours`.

    Raises:
        ArgumentError: an argument is missing, not needed, of a wrong type, shape, device or alignment, or overlaps
            another.
    """
    _check_which(view, frame=frame, colours=colours, tables=tables)
    _check_map(launcher, saliency, limits, opacity)
    _check_pictures(launcher, out, frame, saliency.shape if view == "map8" else (None, None, 3))
    _check_tables(launcher, tables, colours, saliency.shape, out.shape)
    rows, columns = (None, None) if tables is None else (tables.rows, tables.columns)
    read = {"saliency": saliency, "limits": limits, "tables.rows": rows, "tables.columns": columns}
    read |= {"colours": colours, "frame": frame}
    check_apart({"out": out}, read)
    grid = _grid(out.shape)
    if not prod(grid):
        return
    sizes = [np.uint32(size) for size in (saliency.shape[1], out.shape[1], out.shape[0])]
    arguments: list[np.generic] = [address(array) for array in (*read.values(), out)]
    arguments += [*sizes, np.float32(1 - opacity), np.float32(opacity)]
    launcher.launch(_PICTURES[view], grid, _BLOCK, arguments)


def _grid(shape: tuple[int, ...]) -> tuple[int, int, int]:
    columns, rows = (-(-size // threads) for size, threads in zip(shape[1::-1], _BLOCK[:2], strict=True))
    if rows > _MOST_BLOCKS:
        raise ArgumentError(f"out: {shape[0]} rows given, at most {_MOST_BLOCKS * _BLOCK[1]} are possible")
    return columns, rows, 1


def _check_which(view: View, **optional: Array | LinearTables[Array] | None) -> None:
    if view not in VIEWS:
        raise ArgumentError(f"view: {view!r} given, {', '.join(VIEWS)} expected")
    needed = {"map8": (), "map": ("tables",), "overlay": ("frame", "colours", "tables")}[view]
    for name, given in optional.items():
        if given is None and name in needed:
            raise ArgumentError(f"{name}: none given, the view {view} needs it")
        if given is not None and name not in needed:
            raise ArgumentError(f"{name}: given, the view {view} does not take it")


def _check_map(launcher: Launcher, saliency: Array, limits: Array, opacity: float) -> None:
    check_array("saliency", saliency, [np.float32], (None, None), launcher.device, alignment_bytes=4)
    _check_not_empty(saliency, prod(saliency.shape))
    check_array("limits", limits, [np.float32], (2,), launcher.device, alignment_bytes=4)
    if not 0 <= opacity <= 1:
        raise ArgumentError(f"opacity: {opacity} given, 0 to 1 expected")


def _check_pictures(launcher: Launcher, out: Array, frame: Array | None, out_shape: tuple[int | None, ...]) -> None:
    check_array("out", out, [np.uint8], out_shape, launcher.device)
    if frame is not None:
        check_array("frame", frame, [np.uint8], (*out.shape[:2], 3), launcher.device)


def _check_not_empty(saliency: Array, elements: int) -> None:
    if not elements:
        raise ArgumentError(f"saliency: shape {saliency.shape} given, a map with elements expected")


def _check_tables(
    launcher: Launcher,
    tables: LinearTables[Array] | None,
    colours: Array | None,
    map_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
) -> None:
    if colours is not None:
        check_array("colours", colours, [np.uint8], (256, 3), launcher.device)
    if tables is None:
        return
    if tuple(tables.source_hw) != map_shape:
        raise ArgumentError(f"tables: made for maps of {tables.source_hw}, {map_shape} given")
    for name, array, size in (("rows", tables.rows, out_shape[0]), ("columns", tables.columns, out_shape[1])):
        check_array(f"tables.{name}", array, [np.int32], (size, 4), launcher.device, alignment_bytes=ALIGNMENT_BYTES)
