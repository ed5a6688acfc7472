from pathlib import Path

import cv2
import numpy as np
import pytest

from salema.benchmarks.metrics.auc import auc_judd
from salema.benchmarks.metrics.resizing import halve, halve_places, resize
from salema.runtime.metrics import cc, nss, sim
from salema.runtime.output.bicubic import matlab_bicubic

GOLDEN = Path(__file__).parents[2] / "golden/dhf1k_matlab.npz"
SMALL = np.array([[10, 200, 30, 255], [0, 0, 90, 7], [40, 255, 255, 1]])
# What Octave 7.3 with its image package 2.14 gives for doubles.
LARGE = [
    [-6.474489795, 85.177915451, 213.051384839, 117.8225, 30.059664723, 186.048236151, 295.855612244],
    [-4.792040816, 42.211618075, 109.996924198, 78.0275, 47.596982507, 121.177390670, 171.923163265],
    [0, -3.689868804, -2.771501457, 50.1875, 89.202259475, 37.610422740, 0.012755102],
    [13.953673469, 63.136924198, 142.716516034, 193.2755, 188.472819241, 59.575513119, -25.862551020],
    [23.652551020, 118.807871720, 265.636443148, 303.0425, 256.467259475, 87.045218658, -22.014285714],
]  # fmt: skip
WIDE = np.array([[10, 200, 30, 255, 0, 0], [0, 0, 90, 7, 9, 250], [40, 255, 255, 1, 4, 4], [3, 77, 180, 12, 255, 255]])
HALF = [
    [59.785797119, 101.153594970, 55.392639160],
    [82.470062255, 110.928436279, 138.269470214],
]


@pytest.mark.parametrize("frame", range(4))
def test_the_benchmarks_matlab_gives_the_same(frame):
    with np.load(GOLDEN) as golden:
        fixated = np.unpackbits(golden["fixations_packed"][frame], axis=1)[:, :640] > 0
        density, (wanted_auc, *wanted) = golden["density"][frame], golden["matlab"][frame]
        large = matlab_bicubic(golden["prediction"][frame], (360, 640))
    assert large.min() < -0.1
    assert [nss(large, fixated, ddof=1), cc(large, density), sim(large, density)] == pytest.approx(wanted, abs=1e-8)
    jittered = [auc_judd(large, fixated, np.random.default_rng(seed)) for seed in range(20)]
    assert wanted_auc == pytest.approx(np.mean(jittered), abs=4 * np.std(jittered))


def test_octave_gives_the_same():
    assert matlab_bicubic(SMALL.astype(np.uint8), (5, 7)) == pytest.approx(np.array(LARGE), abs=2e-9)
    assert matlab_bicubic(WIDE.astype(np.uint8), (2, 3)) == pytest.approx(np.array(HALF), abs=2e-9)


def keys(distance):
    x = abs(distance)
    return 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def plainly(values, new):
    """Resizes a row pixel by pixel: the kernel widened by the factor, weights to a sum of 1, edges mirrored."""
    old = len(values)
    mirrored = [*values, *values[::-1]]
    shrunk = min(new / old, 1)
    found = []
    for place in range(new):
        centre = (place + 0.5) * old / new - 0.5
        reach = int(2 / shrunk) + 2
        taken = range(int(centre) - reach, int(centre) + reach + 1)
        weights = [keys((centre - pixel) * shrunk) for pixel in taken]
        found.append(sum(w * mirrored[p % (2 * old)] for w, p in zip(weights, taken, strict=True)) / sum(weights))
    return found


@pytest.mark.parametrize(
    ("old", "new"), [(7, 13), (13, 7), (3, 50), (50, 3), (9, 4), (100, 99), (1, 5), (5, 1), (2, 9)]
)
def test_any_factor_is_matlabs_kernel_pixel_by_pixel(old, new):
    row = np.random.default_rng(old * new).integers(0, 256, old).astype(float)
    wanted = np.array(plainly(row.tolist(), new))
    assert matlab_bicubic(np.repeat(row[None], 2, 0), (2, new))[1] == pytest.approx(wanted, abs=1e-9)
    assert matlab_bicubic(np.repeat(row[:, None], 2, 1), (new, 2))[:, 0] == pytest.approx(wanted, abs=1e-9)


def test_a_flat_map_stays_flat():
    large = matlab_bicubic(np.full((24, 32), 7, np.uint8), (50, 37))
    assert large.shape == (50, 37)
    assert np.unique(large).tolist() == [7]


def test_opencv_resizes_the_published_way_and_keeps_the_type():
    values = np.random.default_rng(0).integers(0, 256, (24, 32)).astype(np.uint8)
    for how, flag in (("bilinear", cv2.INTER_LINEAR), ("area", cv2.INTER_AREA)):
        for size in ((36, 50), (10, 12)):
            found = resize(values, size, how)
            assert (found == cv2.resize(values, size[::-1], interpolation=flag)).all()
    assert (resize(values, (10, 12), "area") != resize(values, (10, 12), "bilinear")).any()


def test_halving_takes_the_mean_of_four_and_any_of_four():
    values = np.arange(24, dtype=np.uint8).reshape(4, 6) * 8
    assert halve(values).tolist() == [[28, 44, 60], [124, 140, 156]]
    places = np.zeros((4, 6), bool)
    places[1, 2] = places[2, 5] = places[3, 4] = True
    assert halve_places(places).tolist() == [[False, True, False], [False, False, True]]
    levels = np.zeros((2, 6), np.uint8)
    levels[0, :4:2], levels[1, 4] = [1, 2], 6
    assert halve_places(levels).tolist() == [[False, True, True]]
