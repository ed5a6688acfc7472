import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time

import av
import cv2
import numpy as np
import onnx
import pytest
from limits import run_limited, script
from onnx import numpy_helper
from videos import outputs, probe, write_clip

from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.cli.run import main


def png(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("view", ["overlay", "map", "side-by-side"])
def test_the_video_has_the_shape_of_its_source(cli, model, small_clip, tmp_path, view):
    ran = cli(main, small_clip, "--model", model, "-o", tmp_path / "new/out.mp4", "--view", view)
    assert ran.code == 0
    before, after = probe(small_clip), probe(tmp_path / "new/out.mp4")
    for fact in ("times", "rate", "duration_s", "sound"):
        assert after[fact] == before[fact]
    assert after["size_hw"] == ((64, 192) if view == "side-by-side" else (64, 96))
    assert len(after["images"]) == 12
    if view == "side-by-side":
        assert np.abs(after["images"][5][:, :96].astype(int) - before["images"][5]).mean() < 5


def test_maps_are_the_published_ones(cli, model, small_clip, tmp_path):
    """Every PNG against the rules written out: INTER_AREA, raw map, min-max, times 255, halves up, all in float32."""
    ran = cli(main, small_clip, "--model", model, "--no-video", "--maps", tmp_path / "maps")
    assert ran.code == 0
    names = [path.name for path in outputs(tmp_path / "maps")]
    assert names == [f"{number:04d}.png" for number in range(1, 13)]
    with av.open(str(small_clip)) as container, load(model) as stream:
        for number, frame in enumerate(container.decode(video=0), 1):
            image = frame.to_ndarray(format="bgr24")
            raw = stream.step(cv2.resize(image, (96, 64), interpolation=cv2.INTER_AREA))
            expected = np.floor((raw - raw.min()) / (raw.max() - raw.min()) * np.float32(255) + np.float32(0.5))
            found = png(tmp_path / f"maps/{number:04d}.png")
            assert (found.dtype, found.shape) == (np.uint8, (64, 96))
            np.testing.assert_array_equal(found, expected)
            assert (found.min(), found.max()) == (0, 255)


def test_a_natural_clip_from_end_to_end(cli, model, natural_clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = cli(main, natural_clip, "--model", model, "--maps", "maps", "--json")
    assert ran.code == 0
    summary = json.loads(ran.out)
    assert summary["frames"] == summary["frames_expected"] == 120
    assert set(summary["stage_ms"]) == {"decode", "preprocess", "step", "postprocess", "encode"}
    assert all(ms > 0 for ms in summary["stage_ms"].values())
    assert summary["fps"] == pytest.approx(120 / summary["seconds"])
    assert max(summary["stage_ms"].values()) * 0.12 <= summary["seconds"]  # they run side by side
    assert (summary["interrupted"], summary["error"]) == (False, None)
    video = tmp_path / f"{natural_clip.stem}_saliency.mp4"
    assert summary["video"] == video.name
    before, after = probe(natural_clip), probe(video)
    for fact in ("times", "rate", "duration_s", "size_hw", "aspect"):
        assert after[fact] == before[fact]
    assert len(outputs(tmp_path / "maps")) == 120
    assert "untrained" in ran.err
    assert "auto:" in ran.err


def test_maps_of_an_earlier_run_are_mentioned(cli, model, small_clip, tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/0099.png").write_bytes(b"")
    ran = cli(main, small_clip, "--model", model, "--no-video", "--maps", tmp_path / "maps")
    assert ran.code == 0
    assert ran.err.endswith("maps also holds 1 PNG file that this run did not write\n")


def test_a_model_for_several_streams_is_refused(cli, exported, small_clip, tmp_path):
    ran = cli(main, small_clip, "--model", exported(batch=2), "-o", tmp_path / "new/out.mp4")
    assert (ran.code, "exported with --batch 2" in ran.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_gives_nan_does_not_write_black_maps(cli, exported, small_clip, tmp_path):
    """FP16 weights that overflow on natural frames: here the last bias is made infinite in the exported file."""
    proto = onnx.load(exported(precision="fp16") / "model.onnx")
    bias = next(i for i in proto.graph.initializer if i.name == "salgan.60.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(1, np.nan, np.float16), bias.name))
    onnx.save(proto, tmp_path / "model.onnx")
    ran = cli(main, small_clip, "--model", tmp_path, "-o", tmp_path / "out.mp4")
    assert ran.code == 1
    assert "the model gave NaN or infinity for a frame; export it with --fp32" in ran.err
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "salema-auto.json"}


def test_the_summary_is_one_line(cli, model, small_clip, tmp_path):
    ran = cli(main, small_clip, "--model", model, "-o", tmp_path / "out.mp4")
    assert len(ran.out.splitlines()) == 1
    assert ran.out.startswith("12 frames in ")
    assert ran.out.endswith(f"-> {tmp_path / 'out.mp4'}\n")
    assert "%" not in ran.err  # no progress bar where stderr is no terminal


def test_a_terminal_gets_a_progress_bar(model, small_clip, tmp_path):
    command = [script("salema-run"), small_clip, "--model", model, "-o", tmp_path / "out.mp4"]
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=child, text=True)
    os.close(child)
    shown = b""
    with contextlib.suppress(OSError):  # Linux ends a terminal whose other side is closed with an error
        while block := os.read(parent, 4096):
            shown += block
    os.close(parent)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.startswith("12 frames in ")
    assert re.search(rb"100%.*12/12 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+ frames/s\]", shown)


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("absent.mp4",), 1, "absent.mp4: no such video file"),
        (("empty.mp4",), 1, "empty.mp4: can't be read as a video"),
        (("clip.mp4", "--model", "absent"), 1, "absent: no such model; make one with: salema-export"),
        (("clip.mp4", "--view", "heat"), 2, "--view heat: not one of overlay, map, side-by-side"),
        (("clip.mp4", "--backend", "tensorflow"), 2, "--backend tensorflow: not one of auto"),
        (("clip.mp4", "--device", "tpu"), 2, "--device tpu: not one of auto, cpu, cuda"),
        (("clip.mp4", "-o", "out.avi"), 2, "-o out.avi: not a name that ends in .mp4"),
        (("clip.mp4", "-o", "clip.mp4"), 2, "clip.mp4: is the source itself"),
        (("clip.mp4", "--no-video"), 2, "--no-video leaves nothing to write"),
        (("clip.mp4", "-o", "file/out.mp4"), 1, "file: can't make this folder"),
        (("clip.mp4", "--maps", "file"), 1, "file: can't make this folder"),
        (("clip.mp4", "--nonsense"), 2, "no such option"),
        ((), 2, "give either sources (a video file, say), or --dataset"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    cli, model, small_clip, tmp_path, monkeypatch, options, code, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(small_clip.read_bytes())
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    ran = cli(main, *(() if "--model" in options else ("--model", model)), *options)
    assert ran.code == code
    assert sentence in ran.err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "empty.mp4", "file"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_finishes_the_file(model, tmp_path, number):
    source = write_clip(tmp_path / "long.mp4", np.tile(moving_disc(50, 64, 96), (60, 1, 1, 1)), audio="aac")
    command = [script("salema-run"), source, "--model", model, "-o", tmp_path / "out.mp4", "--maps", tmp_path / "maps"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "maps/0010.png").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    frames = int(out.split()[0])
    assert 10 <= frames < 3000
    assert err.splitlines()[-1] == f"salema-run: interrupted after {frames} of 3000 frames; these are written"
    after = probe(tmp_path / "out.mp4")
    assert len(after["images"]) == frames
    assert after["sound_s"][0] == pytest.approx(frames / 25, abs=0.1)
    assert [path.name for path in outputs(tmp_path)] == ["long.mp4", "maps", "out.mp4"]


@pytest.mark.parametrize("options", [("-o", "out.mp4"), ("--no-video", "--maps", "maps")])
def test_a_full_disk(model, small_clip, tmp_path, options):
    command = [script("salema-run"), small_clip, "--model", model, "--view", "map", *options]
    ran = run_limited(command, file_size=1500, cwd=tmp_path)
    assert ran.returncode == 1
    last = ran.stderr.splitlines()[-1]
    assert last.startswith(("salema-run: out.mp4: can't be written", "salema-run: maps/0001.png: can't be written"))
    assert "File too large" in last
    assert "Traceback" not in ran.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
