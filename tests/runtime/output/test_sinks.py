import csv
import json
import math
import re
import shutil
import subprocess
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from limits import run_limited, script
from videos import outputs, probe, write_clip

from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.cli.run import main
from salema.runtime.output.frame_numbers import measure
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.source import find_sources


@pytest.fixture(scope="module")
def raw(model, small_clip):
    """The raw maps of the small clip, frame by frame."""
    (source,) = find_sources([str(small_clip)])
    with load(model) as stream, Playback(source) as playback:
        return np.stack([stream.step(frame.image_bgr) for frame in playback])


def arrays_of(path):
    with np.load(path) as archive:
        return dict(archive)


def run(cli, model, clip, *options):
    ran = cli(main, clip, "--model", model, "--no-video", *options)
    assert ran.code == 0, ran.err
    return ran


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def pngs(folder):
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in outputs(folder)]


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


def test_time_aware_weights_follow_the_formula(cli, model, small_clip, tmp_path):
    """Every third frame, and then frames at uneven times."""
    run(cli, model, small_clip, "--npz", tmp_path / "a.npz", "--time-aware", "--vid-stride", 3)
    pts = [0, 1, 2, 5, 6, 10]
    uneven = write_clip(tmp_path / "u.mkv", moving_disc(6, 64, 96), pts=pts, rate=Fraction(25))
    run(cli, model, uneven, "--npz", tmp_path / "b.npz", "--time-aware")
    for name, clip, stride in (("a", small_clip, 3), ("b", uneven, 1)):
        found = arrays_of(tmp_path / f"{name}.npz")
        (source,) = find_sources([str(clip)])
        with load(model) as stream, Playback(source) as playback:
            frames = list(playback)[::stride]
            rate, tick = stream.spec.reference_fps, float(playback.time_base)
            last, states = None, []
            for frame in frames:
                elapsed = 1 if last is None else (frame.pts - last) * tick * rate
                before = stream.snapshot()
                saliency = stream.step(frame.image_bgr, elapsed)
                if last is not None:  # the state moved by 1 - 0.9 ** elapsed of the way that a weight of 1 takes it
                    after = stream.snapshot()["ema30"]
                    stream.restore({**before, "first": np.ones(1, np.float32)})
                    stream.step(frame.image_bgr)
                    fresh = stream.snapshot()["ema30"]
                    stream.restore({**before, "ema30": after, "first": np.zeros(1, np.float32)})
                    expected = before["ema30"] + (1 - 0.9**elapsed) * (fresh - before["ema30"])
                    np.testing.assert_allclose(after, expected, atol=1e-5 * np.abs(expected).max())
                last = frame.pts
                states.append(saliency)
        np.testing.assert_allclose(found["maps"], np.stack(states), atol=1e-6)


def dropped(keep, path):
    """Writes frames `keep` of two seconds at 30 fps: one black, then all white."""
    frames = np.full((60, 64, 96, 3), 255, np.uint8)
    frames[0] = 0
    return write_clip(path, frames[keep], pts=keep, rate=Fraction(30))


def test_dropped_frames_leave_the_memory_as_long_in_seconds(cli, model, tmp_path):
    """The frames that a variable rate has kept give the maps that they give in the whole video at its constant rate."""
    whole = dropped(list(range(60)), tmp_path / "whole.mkv")
    run(cli, model, whole, "--npz", tmp_path / "plain.npz")
    plain = arrays_of(tmp_path / "plain.npz")["maps"]
    least = {}
    for name, keep in (("vfr", [0, 1, 2, 3, 4, 19, 20, 37, 38, 39, 58, 59]), ("stride", list(range(0, 60, 5)))):
        clip = dropped(keep, tmp_path / f"{name}.mkv")
        run(cli, model, clip, "--npz", tmp_path / "aware.npz", "--time-aware")
        run(cli, model, clip, "--npz", tmp_path / "unaware.npz")
        np.testing.assert_allclose(arrays_of(tmp_path / "aware.npz")["maps"], plain[keep], atol=2e-4)
        least[name] = np.abs(arrays_of(tmp_path / "unaware.npz")["maps"] - plain[keep]).max()
    assert min(least.values()) > 0.01, least


def test_the_reference_rate_is_the_models_or_the_users(cli, exported, small_clip, tmp_path):
    """At the clip's own 25 fps nothing changes; at twice that each frame counts for two."""
    stored, plain = exported(reference_fps=25), exported(reference_fps=50)
    run(cli, plain, small_clip, "--npz", tmp_path / "plain.npz")
    run(cli, stored, small_clip, "--npz", tmp_path / "stored.npz", "--time-aware")
    run(cli, plain, small_clip, "--npz", tmp_path / "given.npz", "--time-aware", "--reference-fps", 25)
    run(cli, plain, small_clip, "--npz", tmp_path / "twice.npz", "--time-aware")
    expected, same, given, twice = (
        arrays_of(tmp_path / f"{name}.npz")["maps"] for name in ("plain", "stored", "given", "twice")
    )
    np.testing.assert_allclose(same, expected, atol=1e-6)
    np.testing.assert_array_equal(given, same)
    assert np.abs(twice[1:] - expected[1:]).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--reference-fps", 30], "--reference-fps goes with --time-aware; add that, or leave it out"),
        (["--reference-fps", 0, "--time-aware"], "--reference-fps 0: give frames per second, 0.001 to 1000"),
        (["--reference-fps", "nan", "--time-aware"], "--reference-fps nan: give frames per second, 0.001 to 1000"),
    ],
)
def test_reference_rates_that_mean_nothing_are_refused(cli, model, small_clip, tmp_path, options, sentence):
    ran = cli(main, small_clip, "--model", model, "-o", tmp_path / "o.mp4", *options)
    assert (ran.code, ran.err, list(tmp_path.iterdir())) == (2, f"salema-run: {sentence}\n", [])


def test_csv_goes_to_standard_output_and_all_else_to_stderr(cli, model, small_clip, tmp_path):
    run(cli, model, small_clip, "--csv", tmp_path / "file.csv")
    ran = run(cli, model, small_clip, "--csv", "-", "--npz", tmp_path / "t.npz")
    assert ran.out == (tmp_path / "file.csv").read_text()
    assert re.search(rf"^12 frames in .* -> {tmp_path}/t.npz and standard output$", ran.err, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--json"], "--csv - and --json both take standard output; give the CSV a file"),
        (["again.mp4"], "--csv -: several sources are given, and their lines would be mixed; name a folder"),
    ],
)
def test_a_standard_output_that_is_taken_is_refused(cli, model, small_clip, tmp_path, options, sentence):
    shutil.copy(small_clip, tmp_path / "again.mp4")
    options = [tmp_path / option if option.endswith(".mp4") else option for option in options]
    ran = cli(main, small_clip, *options, "--model", model, "--no-video", "--csv", "-")
    assert (ran.code, ran.out, ran.err) == (2, "", f"salema-run: {sentence}\n")


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


def test_time_aware_is_refused_where_there_is_no_average(cli, exported, small_clip, tmp_path):
    ran = cli(main, small_clip, "--model", exported(arch="salgan"), "-o", tmp_path / "o.mp4", "--time-aware")
    assert (ran.code, list(tmp_path.iterdir())) == (2, [])
    assert ran.err.splitlines()[-1] == (
        "salema-run: --time-aware: SalGAN has no average whose weight could follow the time"
    )


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


def test_an_archive_that_fills_the_disk_keeps_what_it_has(model, noisy_clip, raw, tmp_path):
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


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--map-bits", 12, "--maps", "m"), "--map-bits 12: not one of 8, 16"),
        (("--normalise", "video"), "--normalise video: not one of frame, running, none"),
        (("--colormap", "sepia"), "--colormap sepia: not one of autumn, bone,"),
        (("--opacity", 1.5), "--opacity 1.5: give a number from 0 to 1"),
        (("--npz", "maps.zip"), "--npz maps.zip: not a name that ends in .npz"),
        (("--csv", "t.txt"), "--csv t.txt: not a name that ends in .csv"),
        (("--no-video", "-o", "o.mp4", "--maps", "m"), "--no-video and -o contradict each other"),
        (("--start-time", -1), "--start-time -1: give seconds, 0 to 1e+06"),
        (("--csv", "a.csv", "other.mp4"), "--csv a.csv: several sources are given; name a folder"),
        (("-o", "a.mp4", "other.mp4"), "-o a.mp4: several sources are given; name a folder"),
        (("--show",), "--show: there is no display that can be opened (see DISPLAY)"),
    ],
)
def test_usage(cli, model, small_clip, tmp_path, monkeypatch, options, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    (tmp_path / "other.mp4").write_bytes(small_clip.read_bytes())
    ran = cli(main, small_clip, "--model", model, *options)
    assert ran.code == (1 if options == ("--show",) else 2)
    assert ran.err.splitlines()[-1].startswith(f"salema-run: {sentence}")
    assert [path.name for path in outputs(tmp_path)] == ["other.mp4"]


@pytest.mark.parametrize("sources", [("fr",), ("fr", "other")])
def test_maps_do_not_overwrite_the_frames_they_are_of(cli, model, tmp_path, monkeypatch, sources):
    monkeypatch.chdir(tmp_path)
    for name in ("fr", "other"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "0001.png"), np.full((8, 8, 3), 7, np.uint8))
    ran = cli(main, *sources, "--model", model, "--no-video", "--maps", "fr" if len(sources) == 1 else ".")
    assert ran.code == 2
    assert "fr: holds the frames of a source, which maps would overwrite; choose another --maps" in ran.err
    assert (cv2.imread(str(tmp_path / "fr/0001.png")) == 7).all()


def test_names_that_differ_late_do_not_meet(cli, model, small_clip, tmp_path):
    for number in (1, 2):
        (tmp_path / f"{'x' * 60}{number}.mp4").write_bytes(small_clip.read_bytes())
    ran = cli(main, tmp_path / "x*.mp4", "--model", model, "-o", tmp_path / "out", "--jobs", 2)
    assert ran.code == 0, ran.err
    for path in outputs(tmp_path / "out"):
        assert len(probe(path)["images"]) == 12


def test_a_device_is_not_replaced(cli, model, small_clip, tmp_path):
    (tmp_path / "t.csv").symlink_to("/dev/null")
    ran = cli(main, small_clip, "--model", model, "--no-video", "--csv", tmp_path / "t.csv")
    assert (ran.code, "t.csv: is no ordinary file; choose another name" in ran.err) == (1, True)


def test_pictures_too_wide_for_h264(cli, model, tmp_path):
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((2, 9000, 3), np.uint8))
    ran = cli(main, tmp_path / "wide.png", "--model", model, "-o", tmp_path / "o.mp4", "--view", "side-by-side")
    assert ran.code == 1
    assert "o.mp4: 18000x2 pixels, and H.264 goes to 16384 either way; give --view overlay" in ran.err


def test_the_source_is_not_overwritten_whichever_name_it_goes_by(cli, model, small_clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(small_clip.read_bytes())
    (tmp_path / "link.mp4").symlink_to("clip.mp4")
    ran = cli(main, "clip.mp4", "--model", model, "-o", "link.mp4")
    assert (ran.code, ran.err) == (2, "salema-run: link.mp4: is the source itself; choose another name with -o\n")
    assert (tmp_path / "clip.mp4").read_bytes() == small_clip.read_bytes()
