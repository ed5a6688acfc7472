"""Runs every kernel's host build under a sanitizer, named by the first argument, and compares with the twins.

For a process of its own, started with the sanitizer's library preloaded.
"""

import sys

import numpy as np
from host_kernels import HostLauncher, aligned, on_host

from salema.kernels.ops.ema import ema_update
from salema.kernels.ops.postprocess import map_range, postprocess
from salema.kernels.ops.preprocess import preprocess
from salema.kernels.tables import linear_tables, resize_tables
from salema.kernels.twins.ema import ema_update as ema_update_twin
from salema.kernels.twins.postprocess import map_range as map_range_twin
from salema.kernels.twins.postprocess import postprocess as postprocess_twin
from salema.kernels.twins.preprocess import preprocess as preprocess_twin


def check_ema(launcher, rng):
    for shape in ((1, 1, 1, 1), (1, 1, 1, 9), (3, 5, 7, 9), (2, 8, 4, 4)):
        arrays = {"state": aligned(shape, np.float32, rng), "x": aligned(shape, np.float16, rng)}
        arrays |= {"mix": rng.random(shape[0], np.float32), "out": aligned(shape, np.float16)}
        arrays |= {"residual": aligned(shape, np.float16, rng)}
        twin = {name: array.copy() for name, array in arrays.items()}
        ema_update(launcher, **{name: on_host(array) for name, array in arrays.items()})
        ema_update_twin(**twin)
        np.testing.assert_array_equal(arrays["out"], twin["out"])


def check_preprocess(launcher, rng):
    for size in ((1, 1), (7, 5), (48, 64), (33, 97), (64, 96)):
        source = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        out, twin = np.empty((16, 32, 3), np.uint8), np.empty((16, 32, 3), np.uint8)
        tables = resize_tables(size, (16, 32))
        preprocess(launcher, on_host(source), on_host(out), tables.placed(on_host))
        preprocess_twin(source, twin)
        np.testing.assert_array_equal(out, twin)


def check_map_range(launcher, rng):
    for shape in ((1, 1, 1), (2, 3, 5), (1, 24, 32)):
        saliency = aligned(shape, np.float32, rng)
        out, twin = np.empty((shape[0], 2), np.float32), np.empty((shape[0], 2), np.float32)
        map_range(launcher, on_host(saliency), on_host(out))
        map_range_twin(saliency, twin)
        np.testing.assert_array_equal(out, twin)


def aligned_copy(array):
    copy = aligned(array.shape, array.dtype)
    copy[:] = array
    return copy


def check_postprocess(launcher, rng):
    colours = rng.integers(0, 256, (256, 3), dtype=np.uint8)
    for map_hw, size in (((1, 1), (1, 1)), ((4, 6), (7, 5)), ((16, 32), (33, 20))):
        saliency = aligned(map_hw, np.float32, rng)
        limits = np.array([saliency.min(), saliency.max()], np.float32)
        frame, out = (rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2))
        twin = np.empty_like(out)
        tables = linear_tables(map_hw, size).placed(aligned_copy)
        inputs = {"view": "overlay", "frame": frame, "colours": colours, "opacity": 0.5}
        postprocess_twin(saliency, limits, twin, **inputs)
        inputs |= {"frame": on_host(frame), "colours": on_host(colours), "tables": tables.placed(on_host)}
        postprocess(launcher, on_host(saliency), on_host(limits), on_host(out), **inputs)
        np.testing.assert_array_equal(out, twin)


def main():
    sanitizer = sys.argv[1]
    launcher, rng = HostLauncher(sanitizer), np.random.default_rng(0)
    check_map_range(launcher, rng)
    if sanitizer != "thread":  # the others' threads do not meet
        check_ema(launcher, rng)
        check_preprocess(launcher, rng)
        check_postprocess(launcher, rng)
    print("clean")


if __name__ == "__main__":
    main()
