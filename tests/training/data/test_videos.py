import shutil

import cv2
import numpy as np
import pytest
from PIL import Image
from synthetic import write_dataset
from videos import write_clip, write_film

from salema.export.weights.seeded import moving_disc
from salema.runtime.errors import MapError
from salema.runtime.run.dataset_layouts import DATASETS
from salema.runtime.sources.image_reader import read_image
from salema.training.data.batches import Batches
from salema.training.data.plan import Item, Step
from salema.training.data.videos import Videos

SIZE_HW = (48, 64)


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_layout_gives_clips_with_their_gaze(tmp_path, dataset):
    written = write_dataset(tmp_path, dataset)
    gaze = Videos(dataset, written.source, written.truth, None, None, pytest.fail)
    assert (len(gaze.names), gaze.lengths) == (4, (3, 3, 3, 3))
    clip = gaze.clip(0, 1, 5, SIZE_HW, None)
    assert clip.frames.shape == (2, *SIZE_HW, 3)  # the video has no more
    assert clip.weights.tolist() == [1, 1]
    assert np.array_equal(clip.density[0], np.repeat([[1.0] * 32 + [0.0] * 32], 48, 0))
    assert clip.fixations.sum((1, 2)).tolist() == [12, 12]
    assert not clip.fixations[:, :, 32:].any()
    seen = list(gaze.seen(1))
    assert len(seen) == 3
    assert seen[0].fixated.sum() == 12
    assert seen[0].density[:, 40:].min() == 255  # the second video's gaze is on the right


def test_a_mirrored_clip_has_mirrored_gaze(tmp_path):
    written = write_dataset(tmp_path, "other")
    gaze = Videos("other", written.source, None, None, None, pytest.fail)
    for seed in range(8):
        clip = gaze.clip(0, 0, 2, SIZE_HW, np.random.default_rng(seed))
        red_is_left = clip.frames[0, :, :8, 2].mean() > clip.frames[0, :, -8:, 2].mean()
        gaze_is_left = clip.density[0, :, :8].mean() > clip.density[0, :, -8:].mean()
        assert red_is_left == gaze_is_left


def test_frames_without_truth_count_nothing_and_videos_without_it_are_left_out(tmp_path):
    written = write_dataset(tmp_path, "other")
    folder = tmp_path / written.videos[0]
    (folder / "maps/0002.png").unlink()
    (folder / "fixation/0002.png").unlink()
    for path in (tmp_path / written.videos[1]).glob("*/*.png"):
        path.unlink()
    notes = []
    gaze = Videos("other", tmp_path, None, None, None, notes.append)
    assert notes == [f"note: 1 video without ground truth left out: {written.videos[1]}"]
    assert gaze.clip(0, 0, 3, SIZE_HW, None).weights.tolist() == [1, 0, 1]
    assert list(gaze.seen(0))[1].density is None


def test_frames_are_seen_as_they_are_run_though_exif_data_would_turn_them(tmp_path):
    written = write_dataset(tmp_path, "other")
    frame = Videos("other", written.source, None, None, None, pytest.fail)._videos[0].frames[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    with Image.open(frame) as image:
        image.load()
        image.save(frame, exif=exif)
    assert read_image(frame, upright=True).shape[:2] == (image.width, image.height)
    (seen, *_) = Videos("other", written.source, None, None, None, pytest.fail).seen(0)
    assert np.array_equal(seen.frame, read_image(frame))


def test_fixations_alone_are_blurred(tmp_path):
    written = write_dataset(tmp_path, "other")
    for path in tmp_path.glob("*/maps/*.png"):
        path.unlink()
    clip = Videos("other", written.source, None, None, None, pytest.fail).clip(0, 0, 1, SIZE_HW, None)
    assert clip.weights.tolist() == [1]
    assert clip.density.max() == 1
    assert clip.density[0, :, :32].sum() > 10 * clip.density[0, :, 40:].sum()


def test_no_truth_at_all_is_an_error(tmp_path):
    written = write_dataset(tmp_path / "a", "other")
    other = write_dataset(tmp_path / "b", "UCF-sports")
    with pytest.raises(MapError, match="holds no ground truth of the videos in"):
        Videos("other", written.source, other.truth, None, None, pytest.fail)


def test_a_video_file_gives_the_frames_that_are_asked_for(tmp_path):
    frames = moving_disc(12, *SIZE_HW)
    written = write_dataset(tmp_path, "DHF1K", videos=2, frames=12)
    for path in (tmp_path / "frames").rglob("*.png"):
        path.unlink()
    (tmp_path / "video").mkdir()
    write_clip(tmp_path / "video/001.AVI", frames)
    gaze = Videos("DHF1K", written.source, None, 1, 1, pytest.fail)
    clip = gaze.clip(0, 5, 3, SIZE_HW, None)
    assert clip.frames.shape[0] == 3
    differences = [np.abs(clip.frames[0].astype(int) - frame).mean() for frame in frames]
    assert np.argmin(differences) == 5
    assert clip.weights.tolist() == [1, 1, 1]


def test_some_of_the_videos_have_numbers_of_their_own(tmp_path):
    written = write_dataset(tmp_path, "other")
    whole = Videos("other", written.source, None, None, None, pytest.fail)
    some = whole.only([1, 3])
    assert some.names == (whole.names[1], whole.names[3])
    assert len(some.lengths) == 2
    assert np.array_equal(next(some.seen(0)).fixated, next(whole.seen(1)).fixated)
    assert np.array_equal(some.clip(1, 0, 1, SIZE_HW, None).frames, whole.clip(3, 0, 1, SIZE_HW, None).frames)


def film_of(folder, frames, name="001.AVI"):
    """Writes DHF1K's first video as a film, with ground truth of each frame."""
    written = write_dataset(folder, "DHF1K", videos=2, frames=len(frames))
    shutil.rmtree(folder / "frames")
    (folder / "video").mkdir()
    if name.endswith(".AVI"):
        return written, write_film(folder / "video" / name, frames)
    return written, write_clip(folder / "video" / name, frames)


def test_frames_that_only_a_films_header_has_count_nothing(tmp_path):
    written, film = film_of(tmp_path, moving_disc(6, *SIZE_HW))
    data = film.read_bytes()
    for place in (b"avih", b"strh"):
        at = data.index(place) + (24 if place == b"avih" else 40)
        data = data[:at] + b"\7" + data[at + 1 :]
    film.write_bytes(data)
    gaze = Videos("DHF1K", written.source, None, 1, 1, pytest.fail)
    assert gaze.lengths == (7,)
    assert len(gaze.clip(0, 6, 3, SIZE_HW, None).frames) == 0
    steps = [Step((Item(0, 4, 3, 1), Item(0, 6, 1, 2)))]
    batch = Batches(gaze, steps, SIZE_HW, 0, 1, augment=False)[0]
    assert batch.weights.tolist() == batch.real.tolist() == [[1, 1, 0], [0, 0, 0]]


def test_a_film_without_a_number_of_frames_is_counted(tmp_path):
    written, _ = film_of(tmp_path, moving_disc(5, *SIZE_HW), "001.mkv")
    gaze = Videos("DHF1K", written.source, None, 1, 1, pytest.fail)
    assert gaze.lengths == (5,)
    assert gaze.maps_of(0) == ("001", ("0001", "0002", "0003", "0004", "0005"))
    assert gaze.clip(0, 1, 9, SIZE_HW, None).weights.tolist() == [1] * 4


def test_ground_truth_of_other_names_goes_by_its_order_only_where_there_is_as_much(tmp_path):
    write_dataset(tmp_path, "other", videos=2)
    for number in range(1, 4):
        (tmp_path / f"clip 1/000{number}.png").rename(tmp_path / f"clip 1/shot_{number}.png")
    gaze = Videos("other", tmp_path, None, None, None, pytest.fail)
    assert gaze.clip(0, 0, 3, SIZE_HW, None).weights.tolist() == [1, 1, 1]
    (tmp_path / "clip 1/shot_2.png").unlink()
    with pytest.raises(MapError, match=r"clip 1: has 2 frames \(shot_1.png, ...\) and ground truth of 3 \(0001, ...\)"):
        Videos("other", tmp_path, None, None, None, pytest.fail)


def test_videos_without_ground_truth_are_kept_for_a_teacher(tmp_path):
    write_dataset(tmp_path, "other", videos=4)
    for name in ("clip 2", "clip 3"):
        shutil.rmtree(tmp_path / name / "maps")
        shutil.rmtree(tmp_path / name / "fixation")
    notes = []
    gaze = Videos("other", tmp_path, None, None, None, notes.append, unlabelled=True)
    assert notes == ["note: 2 videos without ground truth learned from the teacher alone: clip 2, clip 3"]
    assert [gaze.clip(index, 0, 1, SIZE_HW, None).weights.tolist() for index in range(4)] == [[1], [0], [0], [1]]


def test_of_fixations_alone_the_blur_is_round_on_the_picture(tmp_path):
    """Pictures twice as wide as high, stretched to a square."""
    write_dataset(tmp_path, "other", videos=2, frames=1, size_hw=(64, 128))
    for video in ("clip 1", "clip 2"):
        shutil.rmtree(tmp_path / video / "maps")
        point = np.zeros((64, 128), np.uint8)
        point[32, 64] = 255
        cv2.imwrite(str(tmp_path / video / "fixation/0001.png"), point)
    density = Videos("other", tmp_path, None, None, None, pytest.fail).clip(0, 0, 1, (128, 128), None).density[0]
    high, wide = ((density > 0.5).any(axis).sum() for axis in (1, 0))
    assert high == pytest.approx(2 * wide, abs=2)
