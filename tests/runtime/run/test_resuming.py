"""`salema-run SOURCES --resume`: what is finished is skipped, all else is run again."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from frame_folders import numbered, write_frames
from runs import arrays_of
from videos import write_clip

from salema.export.weights.seeded import moving_disc
from salema.runtime.cli.run import main
from salema.runtime.run.pipeline import process_video
from salema.runtime.run.resuming import Again

_RUNS = "salema.runtime.run.videos.process_video"
_KILLED = """
import os, signal
from salema.runtime.cli.run import main
from salema.runtime.output.map_sinks import MapSink
write = MapSink.write
def write_or_die(sink, drawn):
    write(sink, drawn)
    if sink.path.name == "b":
        os.kill(os.getpid(), signal.SIGKILL)
MapSink.write = write_or_die
main()
"""


@pytest.fixture
def run(cli, model, tmp_path):
    """Two clips and a folder of images, and the command that runs them with every kind of output."""
    (tmp_path / "src").mkdir()
    for shift, name in enumerate("ab"):
        write_clip(tmp_path / f"src/{name}.mp4", np.roll(moving_disc(4 + shift, 48, 64), 5 * shift, 1))
    write_frames(tmp_path / "c", numbered(3))

    def command(*options, model=model, to="out"):
        places = [text for option in ("-o", "--maps", "--npz", "--csv") for text in (option, tmp_path / to)]
        where = ("--model", model, "--backend", "onnxruntime", "--device", "cpu")
        return cli(main, tmp_path / "src", tmp_path / "c", *places, *where, *options)

    return command


def contents(folder):
    """Every output and record; of an NPZ file the arrays, as a ZIP file may hold the time of writing."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".npz"]
    raw = {path: {key: a.tobytes() for key, a in arrays_of(path).items()} for path in folder.glob("*.npz")}
    found = {path: path.read_bytes() for path in files} | raw
    return {path.relative_to(folder): data for path, data in found.items()}


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def ran_again(ran):
    lines = map(json.loads, ran.out.splitlines())
    return "".join(sorted(line["source"].removesuffix(".mp4")[-1] for line in lines if not line.get("skipped")))


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_is_finished_is_skipped_and_stays_as_it_is(run, tmp_path, monkeypatch, jobs):
    assert run("--resume", "--jobs", jobs).code == 0  # nothing is there yet
    before, at = contents(tmp_path / "out"), times(tmp_path / "out")
    assert len(before) == 3 * (3 + 3 + 1) + 4 + 5 + 3
    monkeypatch.setattr(_RUNS, None)  # a source that is run would fail
    ran = run("--resume", "--jobs", jobs)
    assert (ran.code, ran.out) == (0, "3 of 3 sources were finished before, and skipped\n"), ran.err
    assert "run again" not in ran.err
    lines = [json.loads(line) for line in run("--resume", "--json").out.splitlines()]
    out = tmp_path / "out"
    assert lines[0] == {
        "source": str(tmp_path / "src/a.mp4"),
        "skipped": True,
        "video": str(out / "a_saliency.mp4"),
        "maps": str(out / "a"),
        "npz": str(out / "a.npz"),
        "csv": str(out / "a.csv"),
    }
    assert (contents(out), times(out)) == (before, at)


def test_streams_skip_too(run, exported, tmp_path):
    free = exported(batch=None)
    assert run("--streams", 2, model=free).code == 0
    (tmp_path / "out/b.csv").unlink()
    assert ran_again(run("--resume", "--json", "--streams", 2, model=free)) == "b"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--opacity", 0.25), "opacity was 0.5, now 0.25"),
        (("--view", "map"), "view was overlay, now map"),
        (("--map-bits", 16), "map bits was 8, now 16"),
        (("--max-frames", 2), "max frames was unknown, now 2"),
    ],
)
def test_with_another_option_all_are_run_again_and_it_is_said_once(run, options, why):
    run()
    ran = run("--resume", "--json", *options)
    assert (ran.code, ran_again(ran)) == (0, "abc")
    assert ran.err.count("run again") == 1
    assert f"a.mp4 has all its outputs, but {why}; it is run again, as are others like it\n" in ran.err
    assert ran_again(run("--resume", "--json", *options)) == ""


def test_with_another_model_all_are_run_again(run, exported):
    run()
    ran = run("--resume", "--json", model=exported(alpha=0.3))
    assert (ran.code, ran_again(ran)) == (0, "abc")
    assert ran.err.count("has all its outputs, but coefficient was 0.1, now 0.3; files sha256 was ") == 1


@pytest.mark.parametrize(
    "lost", ["a_saliency.mp4", "a/0002.png", "a.npz", "a.csv", "a.npz.salema.json", "a/salema.json"]
)
def test_a_source_that_lacks_an_output_or_a_record_is_run_again(run, tmp_path, lost):
    run()
    (tmp_path / "out" / lost).unlink()
    ran = run("--resume", "--json")
    assert (ran.code, ran_again(ran)) == (0, "a")
    assert ("a.mp4 has all its outputs, but no salema.json tells what made them" in ran.err) == lost.endswith("json")
    assert ran_again(run("--resume", "--json")) == ""


def test_a_changed_source_and_one_that_is_missing_are_not_skipped(run, tmp_path):
    run()
    write_clip(tmp_path / "src/b.mp4", 255 - moving_disc(5, 48, 64))
    shutil.rmtree(tmp_path / "c")
    write_frames(tmp_path / "c", numbered(4))
    ran = run("--resume", "--json")
    assert (ran.code, ran_again(ran)) == (0, "bc")
    assert "images was 3, now 4" in ran.err
    (tmp_path / "src/b.mp4").write_bytes(b"")
    assert run("--resume").code == 1


def test_an_output_in_parts_does_not_pass_for_a_whole_one(run):
    run()
    assert run("--split-minutes", 1, "--opacity", 0.25).code == 0
    ran = run("--resume", "--json", "--opacity", 0.25)
    assert ran_again(ran) == "abc"
    assert "split minutes was 1.0, now unknown" in ran.err


def test_an_interrupted_run_goes_on_and_ends_as_one_that_was_not(run, tmp_path, monkeypatch):
    run(to="whole")
    begun = []

    def interrupted(stream, playback, outputs, options, *, progress, stop):
        begun.append(playback.name)

        def count(frames):
            progress(frames)
            if len(begun) == 2:  # in the middle of the second source
                stop.set()

        return process_video(stream, playback, outputs, options, progress=count, stop=stop)

    with monkeypatch.context() as patch:
        patch.setattr(_RUNS, interrupted)
        ran = run()
    assert ran.code == 130
    assert ran.err.endswith("written\nsalema-run: interrupted; go on with --resume\n")
    assert len(begun) == 2
    ran = run("--resume", "--json")
    assert (ran.code, ran_again(ran)) == (0, "bc")
    assert "b.mp4 has all its outputs, but it was not finished; it is run again" in ran.err
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_killed_run_goes_on(run, model, tmp_path):
    run(to="whole")
    places = [text for option in ("-o", "--maps", "--npz", "--csv") for text in (option, tmp_path / "out")]
    where = ("--model", model, "--backend", "onnxruntime", "--device", "cpu")
    arguments = (tmp_path / "src", tmp_path / "c", *places, *where)
    process = subprocess.run([sys.executable, "-c", _KILLED, *map(str, arguments)], capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert (tmp_path / "out/b/0001.png").exists()
    ran = run("--resume", "--json")
    assert (ran.code, ran_again(ran)) == (0, "bc")
    kept = {path for path in contents(tmp_path / "out") if "recovered" in path.name}
    made = {path: data for path, data in contents(tmp_path / "out").items() if path not in kept}
    assert made == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--csv", "-", "--no-video"), "--csv -"),
        (("--show",), "--show"),
        (("--split-minutes", 1, "--show"), "--show --split-minutes"),
    ],
)
def test_what_is_no_whole_file_is_refused(cli, model, tmp_path, options, named):
    write_frames(tmp_path / "c", numbered(1))
    ran = cli(main, tmp_path / "c", "--model", model, "--resume", *options)
    assert (ran.code, ran.out) == (2, "")
    said = f"--resume {named}: it skips by whole files, which these are not; leave one of them out"
    assert ran.err == f"salema-run: {said}\n"


def test_each_reason_is_said_once():
    said = []
    again = Again("maps", said.append)
    for video, why in (("a", "x"), ("b", "x"), ("c", "y")):
        again(video, why)
    assert [sentence.split()[0] for sentence in said] == ["a", "c"]
    assert again.reasons == {"a": "x", "b": "x", "c": "y"}
