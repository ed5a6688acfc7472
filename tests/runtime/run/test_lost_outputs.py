"""Outputs that can't be finished: each is told, and the others are kept."""

import errno
import shutil

import av
import numpy as np
import pytest
from limits import small_files
from videos import outputs, probe, write_clip

from salema.runtime import load
from salema.runtime.cli.run import main
from salema.runtime.files import whole_files
from salema.runtime.output.outputs import Outputs
from salema.runtime.output.provenance import read_provenance
from salema.runtime.run.pipeline import process_video
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.source import find_sources
from salema.runtime.video.video_writer import VideoWriter


def run_with(model, clip, planned, progress):
    (source,) = find_sources([str(clip)])
    with load(model) as stream, Playback(source) as playback:
        return process_video(stream, playback, planned, progress=progress)


def test_an_output_whose_place_is_gone_takes_no_other_with_it(model, small_clip, tmp_path):
    stick = tmp_path / "stick"
    planned = Outputs(video=tmp_path / "o.mp4", npz=tmp_path / "o.npz", csv=stick / "o.csv")
    summary = run_with(model, small_clip, planned, lambda _: shutil.rmtree(stick, ignore_errors=True))
    assert summary.lost == (str(stick / "o.csv"),)
    assert summary.error == summary.ended_by
    assert summary.error.startswith(f"{stick / 'o.csv'}: can't be written (No such file or directory)")
    assert len(probe(tmp_path / "o.mp4")["images"]) == len(np.load(tmp_path / "o.npz")["maps"]) == 12
    assert read_provenance(tmp_path / "o.npz").why_incomplete == summary.error
    assert [path.name for path in outputs(tmp_path)] == ["o.mp4", "o.npz"]


def test_what_the_disk_fails_to_sync_is_kept_and_told(cli, model, small_clip, tmp_path, monkeypatch):
    sync = whole_files.sync

    def fail(path):
        if path.suffix == ".csv":
            raise OSError(errno.EIO, "Input/output error")
        sync(path)

    monkeypatch.setattr(whole_files, "sync", fail)
    monkeypatch.chdir(tmp_path)
    ran = cli(main, small_clip, "--model", model, "-o", "o.mp4", "--csv", "o.csv")
    assert ran.code == 1
    assert ran.err.endswith(
        "o.csv: is written, but may not be on the disk (Input/output error); check the disk; what came before is"
        " written\n"
    )
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 13
    assert len(probe(tmp_path / "o.mp4")["images"]) == 12
    assert not read_provenance(tmp_path / "o.csv").complete


def test_a_disk_that_is_full_for_the_last_pictures_leaves_a_video_that_plays(cli, model, tmp_path, monkeypatch):
    frames = np.random.default_rng(0).integers(0, 256, (30, 64, 96, 3), dtype=np.uint8)
    clip = write_clip(tmp_path / "a.mp4", frames)
    monkeypatch.chdir(tmp_path)
    options = ("--model", model, "-o", "o.mp4", "--opacity", 0)
    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "_copy_for_players", lambda _: [])
        assert cli(main, clip, *options).code == 0
    size = (tmp_path / "o.mp4").stat().st_size
    (tmp_path / "o.mp4").unlink()
    with small_files(size - 100):
        ran = cli(main, clip, *options)
    assert ran.code == 1
    assert ran.err.endswith(
        "o.mp4: can't be written (File too large); make room or choose another place; what came before is written\n"
    )
    with av.open("o.mp4") as container:
        kept = sum(1 for _ in container.decode(video=0))
    assert 0 < kept < 30
    assert f"note: o.mp4 lacks the last {30 - kept} of these frames" in ran.err
    assert not read_provenance(tmp_path / "o.mp4").complete


@pytest.mark.parametrize("removed", ["o_0002", "o_0004"])
def test_a_part_that_is_lost_is_an_error(cli, model, tmp_path, monkeypatch, removed):
    """Parts of fifteen frames."""
    frames = np.zeros((60, 32, 32, 3), np.uint8)
    clip = write_clip(tmp_path / "a.mp4", frames)
    done = []

    def progress(count):
        done.append(count)
        for path in tmp_path.glob(f".{removed}.*"):
            path.unlink()

    planned = Outputs(csv=tmp_path / "o.csv", split_minutes=0.01)
    summary = run_with(model, clip, planned, progress)
    assert f"{removed}.csv: can't be written (No such file or directory)" in " ".join((summary.error, *summary.notes))
    assert summary.lost == ()
    assert summary.ended_by == summary.error
    assert not read_provenance(tmp_path / "o.csv").complete
    assert (tmp_path / "o_0001.csv").exists()
    assert not (tmp_path / f"{removed}.csv").exists()
