import csv
import re
from fractions import Fraction

import numpy as np
import pytest
from videos import probe, write_clip

from salema.export.weights.seeded import moving_disc
from salema.runtime.cli.run import main
from salema.runtime.output.csv_sinks import CsvSink
from salema.runtime.output.recovery import recover_beside
from salema.runtime.output.sink import Drawn
from salema.runtime.output.split_sink import SplitSink
from salema.runtime.postprocess import Pictures
from salema.runtime.sources.frames import Frame

OUTPUTS = ("-o", "o.mp4", "--npz", "o.npz", "--csv", "o.csv")


@pytest.mark.parametrize("audio", ["aac", "mp2"])
def test_the_parts_are_the_whole(cli, model, tmp_path, monkeypatch, audio):
    """Six seconds in parts of 1.8."""
    monkeypatch.chdir(tmp_path)
    clip = write_clip(tmp_path / "a.mkv", np.tile(moving_disc(50, 64, 96), (3, 1, 1, 1)), audio=audio)
    ran = cli(main, clip, "--model", model, *OUTPUTS)
    assert ran.code == 0, ran.err
    (tmp_path / "o_0002.mp4").write_bytes(b"of an earlier run")
    ran = cli(main, clip, "--model", model, *OUTPUTS, "--split-minutes", 0.03)
    assert ran.code == 0, ran.err
    assert "note: o.mp4 is split: o_0001.mp4 to o_0004.mp4" in ran.err
    parts = [probe(tmp_path / f"o_000{number}.mp4") for number in (1, 2, 3, 4)]
    assert [len(part["images"]) for part in parts] == [45, 45, 45, 15]
    assert [part["duration_s"] for part in parts] == [1.8, 1.8, 1.8, pytest.approx(0.6)]
    for part in parts:
        assert part["times"] == pytest.approx(np.arange(len(part["images"])) / 25, abs=1e-3)
        assert part["sound_s"][0] == pytest.approx(part["duration_s"], abs=0.1)
        assert abs(part["sound_start_s"][0]) < 0.1
    whole = probe(tmp_path / "o.mp4")["images"]
    images = [image.astype(int) for part in parts for image in part["images"]]
    assert np.mean([np.abs(a - b).mean() for a, b in zip(images, whole, strict=True)]) < 6
    maps = [dict(np.load(tmp_path / f"o_000{number}.npz")) for number in (1, 2, 3, 4)]
    for name in ("maps", "times_s"):
        np.testing.assert_array_equal(np.concatenate([part[name] for part in maps]), np.load(tmp_path / "o.npz")[name])
    rows = [row for n in (1, 2, 3, 4) for row in csv.reader((tmp_path / f"o_000{n}.csv").read_text().splitlines()[1:])]
    assert rows == list(csv.reader((tmp_path / "o.csv").read_text().splitlines()))[1:]


def drawn(pts):
    frame = Frame(np.zeros((4, 4, 3), np.uint8), pts, 1, starts_anew=False)
    saliency = np.full((2, 2), 0.5, np.float32)
    pictures = Pictures(np.zeros((2, 2), np.uint8), None, (np.float32(0), np.float32(1)), (0.5, 0.5), saliency)
    return Drawn(frame, pictures, None, pts == 0)


def split(path, *, pts, is_live):
    second = Fraction(1)
    sink = SplitSink(path, 1, lambda part, _, count: CsvSink(part, second, count), second, is_live=is_live)
    with sink:
        for one in pts:
            sink.write(drawn(one))
        return sink.finish(complete=True)


def test_parts_of_an_earlier_run_are_told(tmp_path):
    """As a run with shorter parts leaves them."""
    path = tmp_path / "o.csv"
    for other in ("oo_0009.csv", "o_0009.mp4", "o_9.csv"):
        (tmp_path / other).write_text("another output")
    assert split(path, pts=[0, 60, 120, 180], is_live=False) == [f"{path} is split: o_0001.csv to o_0004.csv"]
    assert split(path, pts=[0, 60], is_live=False) == [
        f"{path} is split: o_0001.csv to o_0002.csv",
        f"{tmp_path} also holds 2 parts that this run did not write: o_0003.csv to o_0004.csv",
    ]


def test_parts_of_a_live_source_tell_their_time_and_replace_none(tmp_path):
    (tmp_path / "day_0041_20260101T000000Z.csv").write_text("before")
    notes = split(tmp_path / "day.csv", pts=[0, 59, 60, 300], is_live=True)  # away for three minutes
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [re.sub(r"_\d{8}T\d{6}Z", "", name) for name in names] == [f"day_{n:04d}.csv" for n in (41, 42, 43, 44)]
    assert notes == [f"{tmp_path / 'day.csv'} is split: {names[1]} to {names[3]}"]
    lines = [(tmp_path / name).read_text().splitlines()[1:] for name in names[1:]]
    assert [[line.split(",")[:2] for line in part] for part in lines] == [
        [["1", "0.000000"], ["2", "59.000000"]],
        [["3", "60.000000"]],
        [["4", "300.000000"]],
    ]


def test_a_killed_run_s_last_part_is_recovered_by_the_next_one(tmp_path):
    (tmp_path / ".day_0042_20260101T000000Z.1.0.partial.csv").write_text("frame\n1\n")
    (tmp_path / ".days.1.0.partial.csv").write_text("frame\n1\n")
    assert len(recover_beside([tmp_path / "day.csv"])) == 1
    assert (tmp_path / "day_0042_20260101T000000Z.recovered-1.csv").read_text() == "frame\n1\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("-o", "o.mp4", "--split-minutes", 0), "--split-minutes 0: give minutes, 0.01 to 100000"),
        (("--no-video", "--maps", "m", "--split-minutes", 1), "--split-minutes: there is nothing to split; give -o,"),
    ],
)
def test_usage(cli, model, small_clip, tmp_path, monkeypatch, options, sentence):
    monkeypatch.chdir(tmp_path)
    ran = cli(main, small_clip, "--model", model, *options)
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith(f"salema-run: {sentence}")
    assert list(tmp_path.iterdir()) == []


def test_a_part_does_not_replace_the_source(cli, model, small_clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o_0001.mp4").write_bytes(small_clip.read_bytes())
    ran = cli(main, "o_0001.mp4", "--model", model, "-o", "o.mp4", "--split-minutes", 1)
    assert (ran.code, "o.mp4: is the source itself; choose another name with -o" in ran.err) == (2, True)
