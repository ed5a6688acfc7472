"""`salema-run --streams N`: sources side by side on one model, each as if it ran alone."""

import json
from threading import Event

import numpy as np
import pytest
from frame_folders import maps_under, numbered, write_frames
from rtsp import RtspServer
from runs import arrays_of, rows_of
from videos import write_clip

from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.batching.stream_batch import USUAL_WAIT_MS
from salema.runtime.cli import opening as cli_opening
from salema.runtime.cli.opening import Announced, Opening
from salema.runtime.cli.run import main
from salema.runtime.output.outputs import Outputs
from salema.runtime.run.stages import RunOptions
from salema.runtime.run.videos import run_sources
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import find_sources

ALL = ("--no-video", "--maps", "maps", "--npz", "npz", "--csv", "csv", "--backend", "onnxruntime", "--device", "cpu")
LENGTHS = {"a": 9, "b": 3, "c": 14, "d": 6}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Four clips of different lengths; in the longest a shot ends."""
    folder = tmp_path_factory.mktemp("streams")
    for shift, (name, count) in enumerate(LENGTHS.items()):
        frames = np.roll(moving_disc(count, 64, 96), 9 * shift, 1)
        if name == "c":
            frames[7:] = 255 - frames[7:]
        write_clip(folder / f"{name}.mp4", frames)
    return folder


@pytest.fixture
def free(exported):
    """A model that takes any number of streams."""
    return exported(batch=None)


def written(folder):
    """What a run wrote: raw maps and times, the levels of the maps, and the numbers."""
    raw = {path.stem: arrays_of(path) for path in (folder / "npz").glob("*.npz")}
    rows = {path.stem: rows_of(path) for path in (folder / "csv").glob("*.csv")}
    return raw, maps_under(folder / "maps"), rows


def run_in(folder, cli, monkeypatch, *arguments):
    folder.mkdir()
    monkeypatch.chdir(folder)
    return cli(main, *arguments)


@pytest.mark.parametrize("options", [(), ("--reset-on-cut", "--time-aware", "--vid-stride", 2)])
def test_each_source_gets_what_it_gets_alone(cli, free, clips, tmp_path, monkeypatch, options):
    arguments = (clips / "*.mp4", "--model", free, *ALL, *options)
    ran = run_in(tmp_path / "alone", cli, monkeypatch, *arguments)
    assert ran.code == 0, ran.err
    ran = run_in(tmp_path / "together", cli, monkeypatch, *arguments, "--streams", 3)
    assert ran.code == 0, ran.err
    assert "\n3 streams on one model; a frame waits for the others for at most 20 ms\n" in ran.err
    (raw, maps, rows), (wanted, wanted_maps, wanted_rows) = written(tmp_path / "together"), written(tmp_path / "alone")
    assert maps == wanted_maps
    assert raw.keys() == wanted.keys() == rows.keys() == set(LENGTHS)
    for name, arrays in wanted.items():
        assert len(arrays["maps"]) == -(-LENGTHS[name] // (2 if options else 1))
        np.testing.assert_array_equal(raw[name]["times_s"], arrays["times_s"])
        np.testing.assert_allclose(raw[name]["maps"], arrays["maps"], rtol=0, atol=1e-6)
        for row, wanted_row in zip(rows[name], wanted_rows[name], strict=True):
            assert row.keys() == wanted_row.keys()
            np.testing.assert_allclose([float(v) for v in row.values()], [float(v) for v in wanted_row.values()], 1e-3)
    made, alone = (json.loads((tmp_path / f"{run}/npz/c.npz.salema.json").read_text()) for run in ("together", "alone"))
    assert made.pop("backend") == f"{alone.pop('backend')}, in batches with other streams"
    assert made == alone


def test_one_that_fails_and_a_camera_leave_the_others_alone(cli, free, clips, tmp_path, monkeypatch):
    server = RtspServer(moving_disc(8, 64, 96))
    write_frames(tmp_path / "frames", numbered(5))
    (tmp_path / "frames/0003.png").write_bytes(b"no image")
    try:
        named = (clips / "a.mp4", tmp_path / "none.mp4", tmp_path / "frames", server.url, clips / "b.mp4")
        ran = run_in(
            *(tmp_path / "run", cli, monkeypatch, *named, "--model", free, *ALL, "--streams", 3, "--max-wait-ms", 1),
            *("--max-frames", 8),
        )
    finally:
        server.close()
    assert ran.code == 1
    assert ran.err.endswith("salema-run: 1 of 5 sources failed; the others are done\n")
    assert "none.mp4: no such video file" in ran.err
    assert "1 image could not be read" in ran.err
    raw, _, _ = written(tmp_path / "run")
    assert sorted(len(arrays["maps"]) for arrays in raw.values()) == [3, 4, 8, 8]


def test_a_dataset_too(cli, free, tmp_path):
    for seed, name in enumerate("abc"):
        write_frames(tmp_path / "src" / name, numbered(3 + seed), seed=seed)
    files = {}
    for streams in (1, 2):
        to = tmp_path / f"dst{streams}"
        where = ("--dataset", "other", "--src", tmp_path / "src", "--dst", to)
        ran = cli(main, *where, "--model", free, "--backend", "onnxruntime", "--streams", streams)
        assert ran.code == 0, ran.err
        files[streams] = [(name, (to / name).stat().st_size > 0) for name in maps_under(to)]
    assert files[1] == files[2]
    assert len(files[1]) == 12


def test_the_model_is_opened_once_and_closed(cli, free, clips, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(cli_opening, "load", lambda *given, **how: opened.append(load(*given, **how)) or opened[-1])
    ran = run_in(tmp_path / "run", cli, monkeypatch, clips / "*.mp4", "--model", free, *ALL, "--streams", 2)
    assert ran.code == 0, ran.err
    (stream,) = opened
    assert stream.streams == 2
    assert not stream.session.is_open


def test_a_stop_ends_all_of_them(free, clips, tmp_path):
    named, stop, done = find_sources([str(clips / "*.mp4")]), Event(), []
    planned = [(source, Outputs(csv=tmp_path / f"{number}.csv")) for number, source in enumerate(named)]

    def progress(frames):
        done.append(frames)
        if len(done) > 8:
            stop.set()

    with Announced(Opening(free, "onnxruntime", "cpu", streams=3, max_wait_ms=5)) as open_stream:
        results = list(
            run_sources(
                *(planned, open_stream, Selection(loop=0), RunOptions()),
                jobs=3,
                stop=stop,
                begun=lambda _: None,
                progress=progress,
                notify=lambda _: None,
            )
        )
    ended = [result for _, _, result in results if result is not None]
    assert [summary.ended_by for summary in ended] == ["interrupted"] * 3
    assert len(results) == 4  # the fourth had no place


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--streams", 2, "--jobs", 3, "--show"), "--streams 2 --jobs 3: both say how many videos run at a time"),
        (("--streams", 2, "--show"), "--show --streams 2: one window at a time, and 2 sources would run at once"),
        (("--max-wait-ms", 5), "--max-wait-ms 5: for --streams only; add that, or leave it out"),
        (("--streams", 2, "--max-wait-ms", -1), "--max-wait-ms -1: give milliseconds, 0 to 10000"),
        (("--streams", 2, "--max-wait-ms", "nan"), "--max-wait-ms nan: give milliseconds, 0 to 10000"),
        (("--streams", 2, "--ray", "local"), "--streams 2 --ray local: a worker runs one video at a time; leave one"),
        (("--streams", 0), "invalid value for '--streams': 0 is not in the range x>=1"),
    ],
)
def test_what_does_not_go_together(cli, free, clips, options, sentence):
    ran = cli(main, clips / "a.mp4", "--model", free, *options)
    assert ran.code == 2
    assert ran.err.startswith(f"salema-run: {sentence}")
    assert ran.err.count("\n") == 1


def test_the_batch_must_fit(cli, model, clips, tmp_path, monkeypatch):
    ran = run_in(tmp_path / "run", cli, monkeypatch, clips / "*.mp4", "--model", model, *ALL, "--streams", 2)
    assert ran.code == 2
    advice = "ask for 1, or export it with --batch dynamic"
    said = f"salema-run: 2 streams asked for, and the model was exported with --batch 1; {advice}"
    assert ran.err.splitlines()[-1] == said
    ran = cli(main, clips / "*.mp4", "--model", model, *ALL, "--streams", 1)
    assert ran.code == 0, ran.err


def test_a_fixed_batch_runs_with_its_own_number(cli, exported, clips, tmp_path, monkeypatch):
    fixed = exported(batch=3)
    ran = run_in(tmp_path / "run", cli, monkeypatch, clips / "a.mp4", clips / "b.mp4", "--model", fixed, *ALL)
    assert ran.code == 2
    assert ran.err.count("a video is one stream; give --streams 3, or export it with --batch 1") == 1
    ran = cli(main, clips / "a.mp4", clips / "b.mp4", "--model", fixed, *ALL, "--streams", 3)
    assert ran.code == 0, ran.err
    raw, _, _ = written(tmp_path / "run")
    assert [len(raw[name]["maps"]) for name in "ab"] == [9, 3]


def test_the_help_says_the_usual_wait(cli):
    assert f"[default: {USUAL_WAIT_MS:g}]" in " ".join(cli(main, "--help").out.split())
