import csv
import subprocess

import av
import numpy as np
import pytest
from limits import run_limited, script
from runs import arrays_of
from videos import outputs, probe, write_clip

from salema.runtime import load
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.source import find_sources


@pytest.fixture(scope="module")
def noisy_clip(tmp_path_factory):
    """A hundred frames that compress badly, with sound."""
    frames = np.random.default_rng(0).integers(0, 256, (100, 240, 320, 3), dtype=np.uint8)
    return write_clip(tmp_path_factory.mktemp("clips") / "noise.mp4", frames, audio="aac")


def test_a_disk_that_fills_up_leaves_a_video_that_plays(model, noisy_clip, tmp_path):
    options = ["-o", "o.mp4", "--csv", "o.csv", "--maps", "maps", "--opacity", "0"]
    whole = subprocess.run(
        [script("salema-run"), noisy_clip, "--model", model, *options], cwd=tmp_path, capture_output=True, text=True
    )
    assert whole.returncode == 0, whole.stderr
    size = (tmp_path / "o.mp4").stat().st_size
    limit = size // 2 + (1 << 19) + size // 16
    assert size > limit, "the clip is too small for this test"
    for path in ("o.mp4", "o.csv"):
        (tmp_path / path).unlink()
    ran = run_limited([script("salema-run"), noisy_clip, "--model", model, *options], file_size=limit, cwd=tmp_path)
    assert ran.returncode == 1
    last = ran.stderr.splitlines()[-1]
    assert last == (
        "salema-run: o.mp4: can't be written (File too large); make room or choose another place; what came before is"
        " written"
    )
    frames = int(ran.stdout.split()[0])
    assert 20 < frames < 100
    with av.open(str(tmp_path / "o.mp4")) as container:
        decoded = sum(1 for _ in container.decode(video=0))
        container.seek(0)
        assert sum(1 for _ in container.decode(audio=0)) > 10
    assert 10 < decoded <= frames
    lacking = f"note: o.mp4 lacks the last {frames - decoded} of these frames" in ran.stderr
    assert lacking == (decoded < frames)
    assert len((tmp_path / "o.csv").read_text().splitlines()) in {frames + 1, frames + 2}
    assert [path.name for path in outputs(tmp_path)] == ["maps", "o.csv", "o.mp4"]


@pytest.mark.parametrize("frames", [1, 12], ids=["at the end", "on the way"])
def test_a_disk_without_room_for_the_first_bytes(model, tmp_path, frames):
    """FFmpeg crashes on packets that come after a header for which there was no room."""
    clip = write_clip(tmp_path / "silent.mp4", np.zeros((frames, 64, 96, 3), np.uint8))
    ran = run_limited([script("salema-run"), clip, "--model", model, "-o", "o.mp4"], file_size=8, cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith("salema-run: o.mp4: can't be written")
    assert list(tmp_path.iterdir()) == [clip]


def test_a_full_disk_where_ffmpeg_holds_pictures_back(model, tmp_path):
    """With sound that ends before the pictures, FFmpeg waits for more of it, for as long as ten seconds."""
    frames = np.random.default_rng(0).integers(0, 256, (200, 120, 160, 3), dtype=np.uint8)
    clip = write_clip(tmp_path / "a.mkv", frames, audio="aac", sound_share=0.1)
    command = [script("salema-run"), clip, "--model", model, "-o", "o.mp4", "--opacity", "0"]
    ran = run_limited(command, file_size=(1 << 19) + 800_000, cwd=tmp_path)
    assert ran.returncode == 1
    assert "what came before is written" in ran.stderr.splitlines()[-1]
    assert len(ran.stderr.splitlines()) <= 4
    assert 10 < len(probe(tmp_path / "o.mp4")["images"]) < 200


def test_a_disk_that_is_full_for_the_numbers_leaves_whole_lines(model, small_clip, tmp_path):
    ran = run_limited(
        [script("salema-run"), small_clip, "--model", model, "--no-video", "--csv", "o.csv"],
        file_size=400,
        cwd=tmp_path,
    )
    assert ran.returncode == 1
    assert "o.csv: can't be written (File too large)" in ran.stderr
    lines = (tmp_path / "o.csv").read_text()
    rows = list(csv.DictReader(lines.splitlines()))
    assert lines.endswith("\n")
    assert 1 <= len(rows) == int(ran.stdout.split()[0]) < 12


def test_an_archive_for_which_there_is_no_room_is_not_left_behind(model, small_clip, tmp_path):
    options = ["--no-video", "--npz", "o.npz", "--csv", "o.csv"]
    ran = run_limited([script("salema-run"), small_clip, "--model", model, *options], file_size=60_000, cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        "salema-run: o.npz: can't be written (File too large); make room or choose another place"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_fills_the_disk_keeps_what_it_has(model, noisy_clip, tmp_path):
    limit = (1 << 19) + 40 * 64 * 96 * 4
    command = [script("salema-run"), noisy_clip, "--model", model, "--no-video", "--npz", "o.npz", "--csv", "o.csv"]
    ran = run_limited(command, file_size=limit, cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].endswith("what came before is written")
    frames = int(ran.stdout.split()[0])
    with np.load(tmp_path / "o.npz") as archive:
        assert archive["maps"].shape == (frames, 64, 96)
        assert archive["times_s"].shape == (frames,)
        assert 20 < frames < 60
    (source,) = find_sources([str(noisy_clip)])
    with load(model) as stream, Playback(source) as playback:
        expected = [stream.step(frame.image_bgr) for frame, _ in zip(playback, range(frames), strict=False)]
    np.testing.assert_array_equal(arrays_of(tmp_path / "o.npz")["maps"], np.stack(expected))
