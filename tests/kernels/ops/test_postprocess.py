"""`map_range` and `postprocess`: their sources on the CPU against their twins, the twins against OpenCV, to the bit."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
from host_kernels import HostLauncher, aligned, build, on_host

from salema.kernels.errors import ArgumentError
from salema.kernels.ops import postprocess as postprocess_op
from salema.kernels.tables import linear_tables
from salema.kernels.twins import postprocess as twins
from salema.runtime.postprocess import Look, render, to_grey

JET = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_JET).reshape(256, 3)
ONE = np.zeros((1, 2, 3), np.float32)
SIZES = {  # of the map, then of the picture
    "one pixel": ((1, 1), (1, 1)),
    "one pixel to many": ((1, 1), (5, 8)),
    "a line": ((1, 7), (9, 1)),
    "odd, up": ((7, 5), (31, 67)),
    "odd, down": ((33, 65), (9, 7)),
    "the same": ((12, 20), (12, 20)),
    "wider and flatter": ((20, 9), (13, 70)),
    "one more than a block": ((6, 8), (9, 33)),
    "SalEMA to CIF": ((72, 96), (144, 176)),
}


@pytest.fixture(scope="module", autouse=True)
def built():
    with ThreadPoolExecutor(2) as pool:  # or else each costs 2 s where it is first used
        list(pool.map(build, postprocess_op.VARIANTS))


def make_map(shape):
    return np.random.default_rng(0).uniform(0.1, 0.7, shape).astype(np.float32)


def make_bytes(*shape):
    return np.random.default_rng(shape).integers(0, 256, shape, np.uint8)


def ranges(maps):
    out = np.full((len(maps), 2), 7, np.float32)
    twins.map_range(maps, out)
    return out


def make(map_hw, hw, view, *, opacity=0.5):
    """Arguments of `postprocess` by name, of its twin but for the tables."""
    made = {"saliency": make_map(map_hw), "view": view, "opacity": opacity}
    made["limits"] = ranges(made["saliency"][None])[0]
    if view == "map8":
        return {**made, "out": make_bytes(*map_hw)}
    made |= {"out": make_bytes(*hw, 3), "tables": linear_tables(map_hw, hw)}
    if view == "overlay":
        made |= {"frame": make_bytes(*hw, 3)[::-1].copy(), "colours": JET.copy()}
    return made


def launch(made, launcher=None):
    placed = {name: on_host(value) if isinstance(value, np.ndarray) else value for name, value in made.items()}
    if made.get("tables"):
        placed["tables"] = made["tables"].placed(on_host)
    postprocess_op.postprocess(launcher or HostLauncher(), **placed)


def assert_is_twin(made):
    """The kernel and the twin write the same; leaves what was written."""
    from_twin = made["out"].copy()
    launch(made)
    twins.postprocess(**{name: value for name, value in made.items() if name != "tables"} | {"out": from_twin})
    np.testing.assert_array_equal(made["out"], from_twin)


def assert_is_opencv(made):
    """What was written is what the CPU's path draws."""
    grey, frame = to_grey(made["saliency"]), made.get("frame")
    if made["view"] == "map8":
        np.testing.assert_array_equal(made["out"], grey)
        return
    if frame is None:
        frame = np.empty((*made["out"].shape[:2], 3), np.uint8)
    np.testing.assert_array_equal(made["out"], render(frame, grey, Look(made["view"])))


def test_halves_go_up():
    made = make((2, 511), (2, 511), "map8")
    halves = (np.arange(511) / 510).astype(np.float32)
    made["saliency"][:], made["limits"][:] = [halves, np.nextafter(halves, np.float32(0))], [0, 1]
    assert_is_twin(made)
    assert made["out"][0, :4].tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", postprocess_op.VIEWS)
def test_bgr(size, view):
    made = make(*SIZES[size], view)
    assert_is_twin(made)
    assert_is_opencv(made)


def test_1080p():
    made = make((192, 256), (1080, 1920), "overlay")
    assert_is_twin(made)
    assert_is_opencv(made)


def test_the_resize_is_opencvs_at_many_sizes():
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(1, 80, 2), rng.integers(1, most, 2)) for _ in range(100) for most in (80, 200)]
    pairs += [((360, 640), (1080, 1920)), ((480, 640), (480, 320)), ((240, 320), (480, 320)), ((64, 96), (32, 24))]
    for number, pair in enumerate(pairs):
        for source, target in (pair, pair[::-1]):
            small = rng.integers(0, 256, (*source, 1 + number % 3), np.uint8)
            expected = cv2.resize(small, [int(size) for size in target[::-1]], interpolation=cv2.INTER_LINEAR)
            found = twins._resize(small, tuple(map(int, target)))
            np.testing.assert_array_equal(found.reshape(expected.shape), expected, err_msg=f"{source} to {target}")


@pytest.mark.parametrize("opacity", [0, 0.1, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.9, 1])
def test_every_pair_of_colours_at_opacities(opacity):
    made = make((16, 16), (256, 256), "overlay", opacity=opacity)
    made["frame"][:] = np.arange(256)[:, None, None]
    made["saliency"][:], made["limits"][:] = np.arange(256).reshape(16, 16), [0, 255]
    assert_is_twin(made)
    frame, colour = np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 2)
    expected = cv2.addWeighted(frame, 1 - opacity, colour, opacity, 0).astype(int)
    exact = opacity * 4 % 1 == 0 or cv2.checkHardwareSupport(11)  # AVX2; without it OpenCV does not fuse
    np.testing.assert_allclose(twins._blend(frame, colour, opacity), expected, atol=0 if exact else 1, rtol=0)


@pytest.mark.parametrize("view", postprocess_op.VIEWS)
@pytest.mark.parametrize("value", [0.25, 0, np.nan, np.inf])
def test_a_flat_map_and_one_with_nan_are_zeros(view, value):
    made = make((5, 6), (7, 8), view)
    made["saliency"][:] = value
    made["saliency"][:2] = 0.5 if np.isnan(value) else value
    made["limits"] = ranges(made["saliency"][None])[0]
    assert_is_twin(made)
    assert_is_opencv(made)
    assert view == "overlay" or not made["out"].any()


@pytest.mark.parametrize("extremes", [(-np.inf, np.inf), (0, np.inf), (-3e38, 3e38), (0, 1e-45), (0.3, 0.4)])
def test_extreme_values_and_limits_narrower_than_the_map(extremes):
    made = make((5, 6), (7, 8), "map8")
    made["saliency"][0, :2] = made["limits"][:] = extremes
    assert_is_twin(made)


def find_ranges(maps, launcher=None):
    out = np.full((len(maps), 2), 7, np.float32)
    postprocess_op.map_range(launcher or HostLauncher(), on_host(maps), on_host(out))
    np.testing.assert_array_equal(out.view(np.uint32), ranges(maps).view(np.uint32))
    return out


@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 2), (5, 3, 3), (3, 5, 7), (2, 13, 41), (2, 48, 63), (1, 180, 320)])
def test_map_range(shape, offset):
    maps = aligned((np.prod(shape) + offset,), np.float32, np.random.default_rng(0))[offset:].reshape(shape)
    np.testing.assert_array_equal(find_ranges(maps), [(one.min(), one.max()) for one in maps])


@pytest.mark.parametrize("place", [0, 1, 5, 100, 230])
def test_a_nan_anywhere_shows_in_its_maps_range_only(place):
    maps = make_map((3, 11, 21))
    maps[1].flat[place] = np.nan
    np.testing.assert_array_equal(np.isnan(find_ranges(maps)), [[False] * 2, [True] * 2, [False] * 2])


@pytest.mark.parametrize("values", [(np.inf, np.inf), (-np.inf, np.inf), (-0.0, 0.0), (0.0, -0.0), (-0.0, -0.0)])
def test_infinities_and_zeros_of_both_signs(values):
    found = find_ranges(np.resize(np.array(values, np.float32), (1, 5, 5)))
    np.testing.assert_array_equal(found[0], [min(values), max(values)])


def test_more_rows_than_a_grid_has_are_refused():
    with pytest.raises(ArgumentError, match="out: 524281 rows given, at most 524280 are possible"):
        launch(make((1, 1), (524281, 1), "map"))


def test_an_empty_picture_launches_nothing():
    launcher = HostLauncher()
    find_ranges(np.zeros((0, 4, 5), np.float32), launcher)
    launch(make((4, 5), (0, 6), "map"), launcher)
    assert launcher.launches == []


@pytest.mark.parametrize(
    ("maps", "out", "sentence"),
    [
        (np.zeros((1, 2, 3)), ONE[0, :1, :2].copy(), "saliency: float64 given, float32 expected"),
        (ONE[0], ONE[0, :1, :2].copy(), r"saliency: shape \(2, 3\) given"),
        (ONE[:, :0], ONE[0, :1, :2].copy(), "saliency: .* a map with elements expected"),
        (ONE, ONE[0, :, :2].copy(), r"out: shape \(2, 2\) given, \(1, 2\) expected"),
        (ONE, ONE[0, :1, :2].astype(np.float16), "out: float16 given"),
        (ONE, ONE[0, :1, :2], "out: overlaps saliency"),
    ],
)
def test_bad_arguments_of_map_range_are_refused(maps, out, sentence):
    launcher = HostLauncher()
    with pytest.raises(ArgumentError, match=sentence):
        postprocess_op.map_range(launcher, on_host(maps), on_host(out))
    assert launcher.launches == []


BAD = {
    "overlay": [
        ("saliency", lambda m: m["saliency"].astype(np.float64), "saliency: float64 given, float32 expected"),
        ("saliency", lambda m: m["saliency"][:0], r"saliency: shape \(0, 6\) given, a map with elements"),
        ("limits", lambda m: np.zeros(3, np.float32), r"limits: shape \(3,\) given"),
        ("out", lambda m: m["out"].astype(np.int8), "out: int8 given, uint8 expected"),
        ("out", lambda m: m["frame"], "out: overlaps frame"),
        ("frame", lambda m: m["frame"][:4], r"frame: shape \(4, 10, 3\) given, \(8, 10, 3\) expected"),
        ("frame", lambda m: None, "frame: none given, the view overlay needs it"),
        ("frame", lambda m: replace(on_host(m["frame"]), device="GPU 1"), "frame: is on another device"),
        ("colours", lambda m: JET[:255], r"colours: shape \(255, 3\) given, \(256, 3\) expected"),
        ("tables", lambda m: None, "tables: none given, the view overlay needs it"),
        ("tables", lambda m: linear_tables((4, 6), (8, 9)), r"tables.columns: shape \(9, 4\) given"),
        ("tables", lambda m: linear_tables((5, 6), (8, 10)), r"tables: made for maps of \(5, 6\), \(4, 6\) given"),
        ("view", lambda m: "heat", "view: 'heat' given, map8, map, overlay expected"),
        ("opacity", lambda m: 1.5, "opacity: 1.5 given, 0 to 1 expected"),
        ("opacity", lambda m: np.nan, "opacity: nan given"),
    ],
    "map": [("frame", lambda m: make_bytes(8, 10, 3), "frame: given, the view map does not take it")],
    "map8": [("frame", lambda m: make_bytes(4, 6, 3), "frame: given, the view map8 does not take it")],
}


@pytest.mark.parametrize(("kind", "bad"), [(kind, bad) for kind, rows in BAD.items() for bad in rows])
def test_bad_arguments_are_refused_by_name_before_a_launch(kind, bad):
    name, change, sentence = bad
    made = make((4, 6), (8, 10), kind)
    made[name] = change(made)
    launcher = HostLauncher()
    with pytest.raises(ArgumentError, match=sentence):
        launch(made, launcher)
    assert launcher.launches == []
