import json
import math
import re
import subprocess

import cv2
import numpy as np
import pytest
from limits import script
from runs import arrays_of, rows_of, run
from videos import outputs, probe, write_clip

from salema.runtime import load
from salema.runtime.cli.run import main
from salema.runtime.output.frame_numbers import measure
from salema.runtime.output.map_sinks import published_name
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.source import find_sources


@pytest.fixture(scope="module")
def raw(model, small_clip):
    """The raw maps of the small clip, frame by frame."""
    (source,) = find_sources([str(small_clip)])
    with load(model) as stream, Playback(source) as playback:
        return np.stack([stream.step(frame.image_bgr) for frame in playback])


def pngs(folder):
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in outputs(folder)]


def test_names_of_maps_have_four_digits_or_more():
    assert [published_name(number) for number in (1, 9999, 10_000)] == ["0001.png", "9999.png", "10000.png"]


def test_npz_holds_the_raw_maps_and_their_times(cli, model, small_clip, raw, tmp_path):
    run(cli, model, small_clip, "--npz", tmp_path / "new/maps.npz")
    with np.load(tmp_path / "new/maps.npz") as archive:
        assert set(archive.files) == {"maps", "times_s"}
        assert (archive["maps"].dtype, archive["times_s"].dtype) == (np.float32, np.float64)
        np.testing.assert_array_equal(archive["maps"], raw)
        np.testing.assert_allclose(archive["times_s"], np.arange(12) / 25)
    assert [path.name for path in outputs(tmp_path / "new")] == ["maps.npz"]


def test_maps_of_16_bits(cli, model, small_clip, raw, tmp_path):
    run(cli, model, small_clip, "--maps", tmp_path, "--map-bits", 16)
    for image, saliency in zip(pngs(tmp_path), raw.astype(np.float64), strict=True):
        assert image.dtype == np.uint16
        expected = (saliency - saliency.min()) / (saliency.max() - saliency.min()) * 65535
        assert np.abs(image - expected).max() < 0.51
        assert (image.min(), image.max()) == (0, 65535)


def test_maps_that_are_not_normalised(cli, model, small_clip, raw, tmp_path):
    run(cli, model, small_clip, "--maps", tmp_path, "--normalise", "none")
    for image, saliency in zip(pngs(tmp_path), raw.astype(np.float64), strict=True):
        assert np.abs(image - saliency * 255).max() < 0.51


@pytest.mark.parametrize("bits", [8, 16])
def test_running_limits_widen_at_once_and_narrow_with_time(cli, model, small_clip, raw, tmp_path, bits):
    run(cli, model, small_clip, "--maps", tmp_path, "--normalise", "running", "--map-bits", bits)
    low, high, share = raw[0].min(), raw[0].max(), 1 - math.exp(-1 / 25)
    most = 2**bits - 1
    for index, (image, saliency) in enumerate(zip(pngs(tmp_path), raw.astype(np.float64), strict=True)):
        if index:
            low = min(saliency.min(), low + share * (saliency.min() - low))
            high = max(saliency.max(), high + share * (saliency.max() - high))
        expected = (saliency - low) / (high - low) * most
        assert np.abs(image - expected).max() < 0.51 + most * 1e-5
        assert 0 <= image.min() <= image.max() <= most


def test_csv_has_a_line_for_each_frame(cli, model, small_clip, raw, tmp_path):
    run(cli, model, small_clip, "--csv", tmp_path / "t.csv")
    rows = rows_of(tmp_path / "t.csv")
    assert list(rows[0]) == [
        *("frame", "time_s", "peak", "peak_x", "peak_y", "centre_x", "centre_y", "entropy_bits", "cut", "new_state")
    ]
    assert len(rows) == 12
    for index, (row, saliency) in enumerate(zip(rows, raw, strict=True)):
        found = measure(saliency, (64, 96))
        assert (int(row["frame"]), float(row["time_s"])) == (index + 1, pytest.approx(index / 25))
        for name in ("peak", "peak_x", "peak_y", "centre_x", "centre_y", "entropy_bits"):
            assert float(row[name]) == pytest.approx(getattr(found, name), rel=1e-5)
        assert (row["cut"], row["new_state"]) == ("0", str(int(index == 0)))


@pytest.fixture(scope="module")
def cut_clip(tmp_path_factory):
    """A black shot of 20 frames, then a white one."""
    frames = np.concatenate([np.zeros((20, 64, 96, 3), np.uint8), np.full((20, 64, 96, 3), 255, np.uint8)])
    return write_clip(tmp_path_factory.mktemp("clips") / "cut.mp4", frames)


@pytest.mark.parametrize("reset", [False, True])
def test_cuts_are_found_and_empty_the_memory_on_request(cli, model, cut_clip, tmp_path, reset):
    options = ["--reset-on-cut"] if reset else []
    ran = run(cli, model, cut_clip, "--csv", tmp_path / "t.csv", "--npz", tmp_path / "t.npz", *options)
    rows = rows_of(tmp_path / "t.csv")
    assert [int(row["frame"]) for row in rows if row["cut"] == "1"] == [21]
    assert [int(row["frame"]) for row in rows if row["new_state"] == "1"] == ([1, 21] if reset else [1])
    of_memory = "each emptied the memory" if reset else "the memory went on; --reset-on-cut empties it"
    assert f"note: 1 scene cut: {of_memory}\n" in ran.err
    maps = arrays_of(tmp_path / "t.npz")["maps"]
    with load(model) as stream:
        white = stream.step(np.full((64, 96, 3), 255, np.uint8))
    assert (np.abs(maps[20] - white).max() < 0.01) == reset


def test_csv_goes_to_standard_output_and_all_else_to_stderr(cli, model, small_clip, tmp_path):
    run(cli, model, small_clip, "--csv", tmp_path / "file.csv")
    ran = run(cli, model, small_clip, "--csv", "-", "--npz", tmp_path / "t.npz")
    assert ran.out == (tmp_path / "file.csv").read_text()
    assert re.search(rf"^12 frames in .* -> {tmp_path}/t.npz and standard output$", ran.err, re.MULTILINE)


def test_a_reader_of_the_csv_that_goes_away_ends_the_run_in_a_sentence(model, small_clip):
    command = [script("salema-run"), small_clip, "--model", model, "--no-video", "--csv", "-", "--loop", 0]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("frame,time_s,")
    assert process.stdout.readline().startswith("1,0.000000,")
    process.stdout.close()
    assert process.wait(60) == 1
    with process.stderr:
        last = process.stderr.read().splitlines()[-1]
    assert last == "salema-run: --csv -: nobody reads standard output any more; what came before is written"


def test_times_count_from_the_first_frame_that_is_run_and_it_is_said_where_that_is(cli, model, small_clip, tmp_path):
    ran = run(cli, model, small_clip, "--csv", tmp_path / "t.csv", "--start-time", 0.2)
    assert [float(row["time_s"]) for row in rows_of(tmp_path / "t.csv")] == pytest.approx(np.arange(7) / 25)
    assert "note: times count from the first frame that was run, at 0.200 s of the source\n" in ran.err
    ran = run(cli, model, small_clip, "--csv", tmp_path / "t.csv", "--start-time", 0.2, "--json")
    assert json.loads(ran.out)["source_start_s"] == pytest.approx(0.2)


def test_colours_and_opacity(cli, model, small_clip, tmp_path):
    for name, options in {"clear": ("--opacity", 0), "hot": ("--opacity", 1, "--colormap", "hot")}.items():
        ran = cli(main, small_clip, "--model", model, "-o", tmp_path / f"{name}.mp4", *options)
        assert ran.code == 0, ran.err
    before = probe(small_clip)["images"][5].astype(int)
    assert np.abs(probe(tmp_path / "clear.mp4")["images"][5] - before).mean() < 4
    hot = probe(tmp_path / "hot.mp4")["images"][5].astype(int)
    assert np.abs(hot - before).mean() > 20
    blue, _, red = hot.reshape(-1, 3).T
    assert (red >= blue - 12).all()  # black, red, yellow, white


def test_names_that_differ_late_do_not_meet(cli, model, small_clip, tmp_path):
    for number in (1, 2):
        (tmp_path / f"{'x' * 60}{number}.mp4").write_bytes(small_clip.read_bytes())
    ran = cli(main, tmp_path / "x*.mp4", "--model", model, "-o", tmp_path / "out", "--jobs", 2)
    assert ran.code == 0, ran.err
    for path in outputs(tmp_path / "out"):
        assert len(probe(path)["images"]) == 12
