import numpy as np
import pytest
from synthetic import write_dataset
from videos import write_clip

from salema.export.weights.seeded import moving_disc
from salema.runtime.errors import MapError
from salema.runtime.run.dataset_layouts import DATASETS
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
