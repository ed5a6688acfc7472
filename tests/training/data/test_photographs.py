import shutil

import cv2
import numpy as np
import pytest

from salema.runtime.errors import MapError, VideoError
from salema.training.data import photographs as photographs_module
from salema.training.data.clip import Shot
from salema.training.data.kept import Kept
from salema.training.data.photographs import Photographs
from salema.training.data.views import View

SIZE_HW = (48, 64)


def peak(density):
    return np.unravel_index(density.argmax(), density.shape)


def brightest(frame):
    rows, columns = np.nonzero(frame.min(2) > 150)
    return rows.mean(), columns.mean()


def test_a_photograph_as_it_is(photographs):
    gaze = Photographs(photographs)
    clip = gaze.clip(0, 0, 1, SIZE_HW, None)
    assert gaze.names == tuple(f"p{index:02d}" for index in range(8))
    assert (clip.frames.shape, clip.frames.dtype) == ((1, *SIZE_HW, 3), np.uint8)
    assert clip.fixations.sum() == 12
    assert clip.density.max() == 1
    assert np.abs(np.subtract(peak(clip.density[0]), brightest(clip.frames[0]))).max() < 4


@pytest.mark.parametrize("seed", range(6))
def test_fixations_move_as_the_picture_does(photographs, seed):
    clip = Photographs(photographs).clip(3, 0, 6, (96, 128), np.random.default_rng(seed))
    assert clip.frames.shape == (6, 96, 128, 3)
    for frame, density, weight in zip(clip.frames, clip.density, clip.weights, strict=True):
        square = np.argwhere(frame.astype(int).sum(2) > 0.8 * frame.astype(int).sum(2).max())
        if weight:  # the square is in the part that is seen
            assert np.abs(square.mean(0) - peak(density)).max() < 16


def test_a_clip_depends_on_its_draws_alone(photographs):
    gaze = Photographs(photographs)
    first, again = (gaze.clip(2, 0, 4, SIZE_HW, np.random.default_rng(7)) for _ in range(2))
    other = gaze.clip(2, 0, 4, SIZE_HW, np.random.default_rng(8))
    assert np.array_equal(first.frames, again.frames)
    assert not np.array_equal(first.frames, other.frames)


def test_a_cut_goes_to_no_photograph_that_is_held_out(photographs, tmp_path, monkeypatch):
    """Each photograph has a grey of its own, by which its frames are known."""
    monkeypatch.setattr(photographs_module, "Colours", lambda _: lambda frame: frame)
    shutil.copytree(photographs, tmp_path, dirs_exist_ok=True)
    for index in range(8):
        cv2.imwrite(str(tmp_path / f"images/p{index:02d}.png"), np.full((*SIZE_HW, 3), 40 + 20 * index, np.uint8))
    gaze = Photographs(tmp_path).only([0, 2])
    shown = set()
    for seed in range(40):
        clip = gaze.clip(0, 0, 6, SIZE_HW, np.random.default_rng(seed))
        shown |= {frame[0, 0, 0] for frame in clip.frames}
    assert shown == {40, 80}


def test_validation_truth_is_as_large_as_the_picture(photographs):
    (seen,) = Photographs(photographs).seen(1)
    assert seen.frame.shape == (48, 64, 3)
    assert seen.density.shape == seen.fixated.shape == (48, 64)
    assert seen.fixated.any()


def write_points(folder, **arrays):
    given = {"names": np.array(["p00"]), "image": np.zeros(1, int), "x": np.array([0.5]), "y": np.array([0.5])}
    np.savez(folder / "fixations.npz", **(given | arrays))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": np.array([1.5])}, "must lie between 0 and 1"),
        ({"x": np.array([np.nan])}, "must lie between 0 and 1"),
        ({"names": np.array(["p00", "p01"])}, "p01 has no fixation"),
        ({"y": np.array(["a"])}, "can't be read"),
        ({"image": np.zeros(3, int)}, "can't be read"),
        ({name: np.zeros(0) for name in ("image", "x", "y")}, "holds no fixation"),
        ({"names": np.array(["p00", "p00"])}, "names has p00 twice"),
        ({"image": np.array([1])}, "image holds 1, and there are 1 names, counted from 0"),
    ],
)
def test_wrong_points_are_refused(tmp_path, arrays, sentence):
    write_points(tmp_path, **arrays)
    with pytest.raises(MapError, match=sentence):
        Photographs(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(VideoError, match="no such folder"):
        Photographs(tmp_path / "nowhere")
    with pytest.raises(MapError, match=r"holds 0 \.npz files; one with the fixations expected"):
        Photographs(tmp_path)
    write_points(tmp_path)
    with pytest.raises(VideoError, match="holds no image called p00"):
        Photographs(tmp_path)
    (tmp_path / "p00.png").write_bytes(b"no picture")
    with pytest.raises(VideoError, match=r"p00\.png: can't be read as an image"):
        Photographs(tmp_path).clip(0, 0, 1, SIZE_HW, None)


def test_a_large_photograph_is_kept_small(tmp_path):
    write_points(tmp_path)
    cv2.imwrite(str(tmp_path / "p00.jpg"), np.full((1500, 2000, 3), 90, np.uint8))
    (seen,) = Photographs(tmp_path).seen(0)
    height, width = seen.fixated.shape
    assert seen.frame.shape == (height, width, 3)
    assert height * width <= 1 << 19
    assert width / height == pytest.approx(4 / 3, rel=1e-2)
    clip = Photographs(tmp_path).clip(0, 0, 1, (96, 128), None)
    assert peak(clip.density[0]) == (48, 64)


def test_pictures_are_kept_up_to_so_many_bytes():
    read = []
    kept = Kept(lambda path: read.append(path) or np.zeros(100, np.uint8), 250)
    for _ in range(2):
        for name in "abc":
            assert kept(name).shape == (100,)
    assert read == ["a", "b", "c", "c"]


def test_a_portrait_is_blurred_as_much_upwards_as_across(tmp_path):
    write_points(tmp_path)
    cv2.imwrite(str(tmp_path / "p00.png"), np.zeros((256, 128, 3), np.uint8))
    density = Photographs(tmp_path).clip(0, 0, 1, (192, 256), None).density[0]
    # 0.03 of the picture's width, which is half its height: 7.7 of 256 columns, 2.9 of 192 rows.
    assert density[96, 128 + 8] == pytest.approx(np.exp(-0.5 * (8 / 7.68) ** 2), abs=0.02)
    assert density[96 + 3, 128] == pytest.approx(np.exp(-0.5 * (3 / 2.88) ** 2), abs=0.02)


def test_a_part_is_blurred_as_the_picture_is(tmp_path):
    write_points(tmp_path)
    cv2.imwrite(str(tmp_path / "p00.png"), np.zeros((192, 256, 3), np.uint8))
    part = View(0.25, 0, 0.75, 1)  # stretched to twice its width
    density = Photographs(tmp_path)._render([Shot(0, 0, part)], (192, 256), None).density[0]
    # 0.03 of the picture's width: 15.4 columns, as the part is stretched, and 7.7 rows.
    assert density[96, 128 + 15] == pytest.approx(np.exp(-0.5 * (15 / 15.36) ** 2), abs=0.02)
    assert density[96 + 8, 128] == pytest.approx(np.exp(-0.5 * (8 / 7.68) ** 2), abs=0.02)


@pytest.mark.parametrize("name", ["p00", b"p00", "p00.JPG"])
def test_an_image_is_found_whatever_the_case_of_its_suffix(tmp_path, name):
    write_points(tmp_path, names=np.array([name]))
    (tmp_path / "p00.JPG").write_bytes(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    assert Photographs(tmp_path).clip(0, 0, 1, SIZE_HW, None).frames.shape == (1, *SIZE_HW, 3)
