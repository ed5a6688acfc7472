"""A teacher's maps on disk: found by the names that `salema-run` gives, and moved as the frames are."""

import cv2
import numpy as np
import pytest
from synthetic import write_dataset

from salema.runtime.errors import MapError
from salema.runtime.run.dataset_layouts import DATASETS, list_videos
from salema.training.data.batches import Batches
from salema.training.data.photographs import Photographs
from salema.training.data.plan import Item, Step
from salema.training.data.taught import TaughtMaps
from salema.training.data.videos import Videos

SIZE_HW = (48, 64)


def write_map(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


@pytest.fixture(scope="module")
def maps(photographs, tmp_path_factory):
    """Of each photograph the map of a good teacher: its bright square."""
    folder = tmp_path_factory.mktemp("maps")
    for path in sorted((photographs / "images").iterdir()):
        square = (cv2.imread(str(path)).min(2) > 150).astype(np.uint8) * 255
        write_map(folder / path.stem / "0001.png", square)
    return folder


@pytest.mark.parametrize("frames", [1, 6])
def test_a_photographs_map_moves_as_the_photograph_does(photographs, maps, frames):
    gaze = Photographs(photographs)
    taught = TaughtMaps(maps, gaze)
    compared = 0
    for seed in range(12):
        clip = gaze.clip(3, 0, frames, SIZE_HW, np.random.default_rng(seed))
        found = taught.of(clip.shots, SIZE_HW)
        assert (found.shape, found.dtype) == ((frames, *SIZE_HW), np.float32)
        for frame, own, weight in zip(clip.frames, found, clip.weights, strict=True):
            square = np.argwhere(frame.astype(int).sum(2) > 0.8 * frame.astype(int).sum(2).max())
            if weight and own.any():
                assert np.abs(square.mean(0) - np.argwhere(own > 0.5).mean(0)).max() < 2
                compared += 1
    assert compared > 10 * frames


@pytest.mark.parametrize("dataset", DATASETS)
def test_maps_of_every_layout_are_found_and_mirrored_as_the_frames(tmp_path, dataset):
    written = write_dataset(tmp_path / "data", dataset)
    gaze = Videos(dataset, written.source, written.truth, None, None, pytest.fail)
    for video in list_videos(dataset, written.source, tmp_path / "maps", "wise.pt"):
        for number, (frame, path) in enumerate(zip(video.frames, video.maps, strict=True)):
            image = cv2.imread(str(frame))[..., 2] // 2  # what is red on the left, as the gaze is in the first video
            image[20:24] = 40 * number
            write_map(path, image)
    taught = TaughtMaps(tmp_path / "maps", gaze)
    sides = set()
    for seed in range(8):
        clip = gaze.clip(0, 1, 2, SIZE_HW, np.random.default_rng(seed))
        first, second = taught.of(clip.shots, SIZE_HW)
        on_left = bool(clip.frames[0, :, :8, 2].mean() > clip.frames[0, :, -8:, 2].mean())
        assert (first[:, :8].mean() > first[:, -8:].mean()) == on_left
        sides.add(on_left)
        assert [shot.frame for shot in clip.shots] == [1, 2]
        assert not np.array_equal(first, second)
    assert sides == {True, False}


def test_maps_come_with_their_clips_of_a_step(photographs, maps):
    gaze = Photographs(photographs)
    items = (Item(2, 0, 1, 5), Item(4, 0, 2, 6), Item(0, 0, 0, 0))
    batches = Batches(gaze, [Step(items)], SIZE_HW, 0, 1, augment=False, taught=TaughtMaps(maps, gaze))
    taught = batches[0].taught.numpy()
    assert taught.shape == (3, 2, *SIZE_HW)
    for row, video in ((0, 2), (1, 4)):
        own = cv2.imread(str(maps / gaze.names[video] / "0001.png"), cv2.IMREAD_GRAYSCALE) / 255
        assert np.array_equal(taught[row], np.stack([own, own]).astype(np.float32))
    assert not taught[2].any()
    assert batches[0].part(slice(1, 2)).taught.shape == (1, 2, *SIZE_HW)
    assert Batches(gaze, [Step(items)], SIZE_HW, 0, 1, augment=False)[0].taught is None


def test_a_missing_map_is_named(photographs, maps, tmp_path):
    gaze = Photographs(photographs)
    for name in gaze.names[:3]:
        write_map(tmp_path / name / "0001.png", np.eye(8, dtype=np.uint8))
    with pytest.raises(MapError, match=r"no map of p03, frame 0001 \(5 maps missing in all\); each .* with salema-run"):
        TaughtMaps(tmp_path, gaze)
    TaughtMaps(tmp_path, gaze.only([0, 2]))  # what is held out needs none
    with pytest.raises(MapError, match="holds no predictions of other"):
        TaughtMaps(photographs, gaze)


def test_a_missing_frame_of_a_video_is_named(tmp_path):
    written = write_dataset(tmp_path / "data", "other")
    gaze = Videos("other", written.source, written.truth, None, None, pytest.fail)
    for video in list_videos("other", written.source, tmp_path / "maps", "wise"):
        for path in video.maps:
            write_map(path, np.eye(8, dtype=np.uint8))
    path.unlink()
    with pytest.raises(MapError, match=rf"holds no map of {gaze.names[-1]}, frame \w+ \(1 map missing in all\)"):
        TaughtMaps(tmp_path / "maps", gaze)
