"""`preprocess`: its source on the CPU against its NumPy twin, and the twin against OpenCV, both to the bit."""

import dataclasses

import cv2
import numpy as np
import pytest
from host_kernels import HostLauncher, on_host

from salema.kernels.errors import ArgumentError
from salema.kernels.ops.preprocess import VARIANTS, preprocess
from salema.kernels.tables import AREA, LINEAR, MODES, WHOLE, AxisTable, resize_tables
from salema.kernels.twins.preprocess import preprocess as twin

NETWORKS = [(192, 256), (64, 96), (16, 16)]
SOURCES = {
    "4K": (2160, 3840),
    "full HD": (1080, 1920),
    "HD": (720, 1280),
    "VGA": (480, 640),
    "wide VGA": (360, 640),
    "QVGA": (240, 320),
    "QCIF": (144, 176),
    "odd": (359, 641),
    "thrice": (576, 768),
    "twice": (384, 512),
    "same": (192, 256),
    "a pixel": (1, 1),
    "a row": (1, 700),
    "a column": (700, 1),
}
MODE_SIZES = {
    "WHOLE, halved": ((12, 20), (6, 10), WHOLE),
    "WHOLE, one axis halved": ((12, 10), (6, 10), WHOLE),
    "WHOLE": ((12, 21), (4, 3), WHOLE),
    "WHOLE, same": ((5, 7), (5, 7), WHOLE),
    "AREA": ((13, 20), (6, 8), AREA),
    "AREA, 49 to 1, for 1 / (1 / 49) is less": ((3, 49), (3, 1), AREA),
    "AREA, one axis same": ((12, 21), (12, 4), AREA),
    "LINEAR": ((6, 8), (13, 20), LINEAR),
    "LINEAR, one axis shrinks": ((6, 40), (13, 20), LINEAR),
}


def random_bytes(shape, seed=0):
    """Random bytes, with many at the ends of their range."""
    values = np.random.default_rng(seed).integers(-64, 320, shape)
    return np.clip(values, 0, 255).astype(np.uint8)


def from_kernel(source, network_hw, launcher=None):
    """The middle one of three frames, of which the kernel must not write the others."""
    tables = resize_tables(source.shape[:2], network_hw)
    batch = np.full((3, *network_hw, 3), 77, np.uint8)
    preprocess(launcher or HostLauncher(), on_host(source), on_host(batch[1]), tables.placed(on_host))
    assert (batch[[0, 2]] == 77).all()
    return batch[1]


def from_twin(source, network_hw):
    out = np.zeros((*network_hw, 3), np.uint8)
    twin(source, out)
    return out


def assert_all_same(source, network_hw):
    expected = cv2.resize(source, network_hw[::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(from_twin(source, network_hw), expected)
    np.testing.assert_array_equal(from_kernel(source, network_hw), expected)


def random_sizes(count):
    """Pairs of sizes: any, multiples, and nearly the same."""
    rng = np.random.default_rng(4)
    for kind in range(count):
        network = rng.integers(1, 40, 2)
        any_size, several, near = np.exp(rng.uniform(0, 5, 2)), network * rng.integers(1, 9, 2), network + kind % 3 - 1
        source = np.maximum((any_size, any_size, several, near)[kind % 4], 1)
        yield tuple(int(n) for n in source), tuple(int(n) for n in network)


@pytest.mark.parametrize("size", SOURCES)
def test_common_sizes_are_opencvs_to_the_bit(size):
    frame = random_bytes((*SOURCES[size], 3))
    for network in NETWORKS[:1] if size == "4K" else NETWORKS:
        assert_all_same(frame, network)


@pytest.mark.parametrize("case", MODE_SIZES)
def test_each_way_to_resize(case):
    source, network, mode = MODE_SIZES[case]
    assert resize_tables(source, network).mode == mode
    assert_all_same(random_bytes((*source, 3)), network)


def test_random_sizes_are_opencvs_to_the_bit():
    modes = set()
    for seed, (source, network) in enumerate(random_sizes(240)):
        assert_all_same(random_bytes((*source, 3), seed), network)
        modes.add(resize_tables(source, network).mode)
    assert modes == set(MODES)


def test_halves_are_rounded_as_opencv_does():
    frame = np.zeros((2, 8, 3), np.uint8)
    frame[0, ::2] = [[2, 6, 10]]  # quarters of these are halves
    np.testing.assert_array_equal(from_kernel(frame, (1, 4))[0, 0], [1, 2, 3])  # 2x2: up
    frame = frame.reshape(1, 16, 3)
    np.testing.assert_array_equal(from_kernel(frame, (1, 4))[0, 0], [1, 3, 5])
    frame[0, 2] = 0
    np.testing.assert_array_equal(from_kernel(frame, (1, 4))[0, 0], [0, 2, 2])  # others: to even
    assert_all_same(frame, (1, 4))


def test_the_tables_are_those_of_both_sizes():
    tables = resize_tables((5, 8), (2, 3))
    assert (tables.mode, tables.source_size_hw, tables.network_size_hw) == (AREA, (5, 8), (2, 3))
    np.testing.assert_array_equal(tables.rows.spans, [[0, 2], [2, 4]])
    np.testing.assert_allclose(tables.rows.weights, [[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]])
    np.testing.assert_array_equal(tables.columns.spans, [[0, 2], [2, 5], [5, 7]])
    expected = [[0.375, 0.375, 0.25, 0], [0.125, 0.375, 0.375, 0.125], [0.25, 0.375, 0.375, 0]]
    np.testing.assert_allclose(tables.columns.weights, expected)


def test_tables_lie_in_the_order_that_the_kernel_reads():
    for source, network, _ in MODE_SIZES.values():
        tables = resize_tables(source, network)
        for table, size, most in zip((tables.rows, tables.columns), network, source, strict=True):
            for array, dtype in ((table.spans, np.int32), (table.weights, np.float32)):
                assert (array.dtype, array.flags.c_contiguous, len(array)) == (dtype, True, size)
            assert table.spans.min() >= 0
            assert table.spans.max() < most


@pytest.mark.parametrize("sizes", [((0, 4), (2, 2)), ((4, 4), (2, -1))])
def test_tables_of_nothing_are_refused(sizes):
    with pytest.raises(ArgumentError, match=r"_size_hw: -?\d rows and -?\d columns given, at least 1 of each expected"):
        resize_tables(*sizes)


def test_there_is_a_variant_for_each_mode():
    launcher = HostLauncher()
    for source, network, _ in (MODE_SIZES[mode] for mode in MODES):
        from_kernel(random_bytes((*source, 3)), network, launcher=launcher)
    assert tuple(launcher.launches) == VARIANTS


def arguments():
    """Arguments of a launch by name, and the arrays to keep."""
    network = (4, 5)
    kept = {"source": random_bytes((6, 8, 3)), "out": np.zeros((*network, 3), np.uint8)}
    tables = resize_tables((6, 8), network)
    placed = {name: on_host(array) for name, array in kept.items()}
    return {**placed, "tables": tables.placed(on_host)}, (kept, tables)


def changed_tables(given, axis="rows", **changes):
    table = getattr(given["tables"], axis)
    arrays = {name: getattr(table, name) for name in ("spans", "weights")}
    changed = {name: dataclasses.replace(arrays[name], **change) for name, change in changes.items()}
    return dataclasses.replace(given["tables"], **{axis: AxisTable(**{**arrays, **changed})})


def changed(name, **changes):
    return lambda given: {name: dataclasses.replace(given[name], **changes)}


BAD = {
    "source's type": (changed("source", dtype=np.dtype(np.float32)), "source: float32 given, uint8 expected"),
    "source's shape": (changed("source", shape=(6, 7, 3)), r"source: shape \(6, 7, 3\) given, \(6, 8, 3\) expected"),
    "source without channels": (changed("source", shape=(6, 8)), r"source: shape \(6, 8\) given, \(6, 8, 3\) expected"),
    "source's device": (changed("source", device="GPU 1"), "source: is on another device"),
    "source at 0": (changed("source", address=0), "source: address 0x0 given"),
    "source of 3 GiB": (
        lambda given: {
            "source": dataclasses.replace(given["source"], shape=(1 << 15, 1 << 15, 3)),
            "tables": dataclasses.replace(given["tables"], source_size_hw=(1 << 15, 1 << 15)),
        },
        "source: 3221225472 elements given, at most 2147483647 are possible",
    ),
    "out's type": (changed("out", dtype=np.dtype(np.int8)), "out: int8 given, uint8 expected"),
    "out's shape": (changed("out", shape=(5, 4, 3)), r"out: shape \(5, 4, 3\) given, \(4, 5, 3\) expected"),
    "out on the source": (
        lambda given: {"out": dataclasses.replace(given["out"], address=given["source"].address + 99)},
        "out: overlaps source; each needs memory of its own",
    ),
    "out on a table": (
        lambda given: {"out": dataclasses.replace(given["out"], address=given["tables"].columns.weights.address)},
        "out: overlaps tables.columns.weights",
    ),
    "tables' mode": (
        lambda given: {"tables": dataclasses.replace(given["tables"], mode="CUBIC")},
        "tables: mode CUBIC given, WHOLE or AREA or LINEAR expected",
    ),
    "spans' type": (
        lambda given: {"tables": changed_tables(given, spans={"dtype": np.dtype(np.int64)})},
        "tables.rows.spans: int64 given, int32 expected",
    ),
    "spans' shape": (
        lambda given: {"tables": changed_tables(given, "columns", spans={"shape": (4, 2)})},
        r"tables.columns.spans: shape \(4, 2\) given, \(5, 2\) expected",
    ),
    "weights' place": (
        lambda given: {"tables": changed_tables(given, weights={"address": 2})},
        "tables.rows.weights: address 0x2 given, a multiple of 4 expected",
    ),
    "weights' device": (
        lambda given: {"tables": changed_tables(given, weights={"device": "GPU 1"})},
        "tables.rows.weights: is on another device",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_refused_by_name_before_a_launch(case):
    change, sentence = BAD[case]
    given, _kept = arguments()
    launcher = HostLauncher()
    with pytest.raises(ArgumentError, match=sentence):
        preprocess(launcher, **{**given, **change(given)})
    assert launcher.launches == []
