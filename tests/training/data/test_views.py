import numpy as np
import pytest

from salema.training.data.targets import blurred, count_fixations, peaked
from salema.training.data.views import Colours, View, between, random_view


def dot(height, width, row, column):
    image = np.zeros((height, width, 3), np.uint8)
    image[row, column] = 255
    return image


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_points_stay_on_what_they_lie_on(seed, mirrored):
    rng = np.random.default_rng(seed)
    view = random_view(rng, 0.6, mirrored=mirrored)
    height, width = 240, 320
    row, column = 120, 160  # in every part of at least 0.6
    point = np.array([[(column + 0.5) / width, (row + 0.5) / height]], np.float32)
    seen = view.picture(dot(height, width, row, column), (48, 64))[..., 0]
    place = np.unravel_index(seen.argmax(), seen.shape)
    counted = np.argwhere(count_fixations(view.points(point), (48, 64)))
    assert len(counted) == 1
    assert np.abs(counted[0] - place).max() <= 1


def test_points_outside_are_left_out_and_the_edge_is_inside():
    view = View(0.5, 0, 1, 1)
    points = np.array([[0.4, 0.5], [0.5, 0.0], [0.75, 0.5], [1.0, 0.5]], np.float32)
    assert view.points(points).tolist() == [[0, 0], [0.5, 0.5]]
    assert View(mirrored=True).points(np.array([[0.0, 0.5]], np.float32))[0, 0] < 1


def test_a_view_moves_evenly():
    half = between(View(0, 0, 0.5, 0.5), View(0.5, 0.5, 1, 1), 0.5)
    assert (half.left, half.top, half.right, half.bottom) == (0.25, 0.25, 0.75, 0.75)


def test_a_mirrored_picture_is_mirrored():
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(View(mirrored=True).picture(picture, (2, 4)), picture[:, ::-1])


def test_colours_are_one_change_for_all_frames_and_stay_in_range():
    colours = Colours(np.random.default_rng(1))
    frame = np.random.default_rng(2).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    changed = colours(frame)
    assert changed.dtype == np.uint8
    assert np.array_equal(changed, colours(frame))
    assert not np.array_equal(changed, frame)


def test_fixations_are_counted_where_they_fell():
    counts = count_fixations(np.array([[0.0, 0.0], [0.99, 0.99], [0.99, 0.99], [1.0, 1.0]], np.float32), (4, 6))
    assert counts[0, 0] == 1
    assert counts[3, 5] == 2
    assert counts.sum() == 3


def test_a_density_peaks_at_1_on_the_fixation():
    counts = np.zeros((40, 60), np.float32)
    counts[10, 20] = 2
    density = blurred(counts, 0.05)
    assert density[10, 20] == 1
    assert density[10, 23] == pytest.approx(np.exp(-0.5), abs=1e-3)  # a deviation of 0.05 * 60 pixels


def test_a_blank_density_stays_blank():
    assert not peaked(np.full((4, 4), 7, np.uint8)).any()
    assert peaked(np.array([[3, 5]], np.uint8)).tolist() == [[0, 1]]
