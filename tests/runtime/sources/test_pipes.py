"""Standard input, and GStreamer by a stand-in for its command where that is not installed."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from limits import script
from videos import DISC, probe, write_clip, write_coded

from salema.runtime.cli.run import main
from salema.runtime.errors import MissingDependencyError, VideoError
from salema.runtime.sources.pipes import _words
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.source import find_sources


def run(arguments, **options):
    return subprocess.run(list(map(str, arguments)), capture_output=True, timeout=60, **options)


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4"])
@pytest.mark.parametrize("how", ["pipe", "file"])
def test_standard_input(model, tmp_path, name, how):
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 96, 3), dtype=np.uint8)  # no buffer holds all of it
    clip = write_clip(tmp_path / name, noise, options={"crf": "1"})
    arguments = [script("salema-run"), "-", "--model", model, "-o", tmp_path / "o.mp4"]
    if how == "pipe":
        ran = run(arguments, input=clip.read_bytes())
    else:
        with clip.open("rb") as file:
            ran = run(arguments, stdin=file)
    err = ran.stderr.decode()
    if (name, how) == ("a.mp4", "pipe"):
        assert ran.returncode == 1
        assert "name the file if it is an MP4 with its index at the end, or pipe it as MKV" in err
        assert not (tmp_path / "o.mp4").exists()
        return
    assert ran.returncode == 0, err
    assert len(probe(tmp_path / "o.mp4")["images"]) == 20


def test_the_usual_name_of_the_output(model, tmp_path):
    clip = write_clip(tmp_path / "a.mkv", DISC, audio="aac")
    ran = run([script("salema-run"), "-", "--model", model], input=clip.read_bytes(), cwd=tmp_path)
    assert ran.returncode == 0
    assert probe(tmp_path / "stdin_saliency.mp4")["sound"] == ["aac"]


@pytest.mark.parametrize("data", [b"", b"no video at all"])
def test_standard_input_that_is_no_video(model, tmp_path, data):
    ran = run([script("salema-run"), "-", "--model", model], input=data, cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.decode().splitlines()[-1].startswith("salema-run: standard input: can't be read as a video")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_standard_input(model, tmp_path):
    code = "import os, sys; os.close(0); os.execv(sys.argv[1], sys.argv[1:])"
    ran = run([sys.executable, "-c", code, script("salema-run"), "-", "--model", model], cwd=tmp_path)
    assert (ran.returncode, b"-: standard input is closed" in ran.stderr) == (2, True)


def test_a_terminal_is_refused(model, tmp_path):
    import pty

    parent, child = pty.openpty()
    ran = run([script("salema-run"), "-", "--model", model], stdin=child, cwd=tmp_path)
    os.close(parent)
    os.close(child)
    assert ran.returncode == 2
    assert b"-: standard input is a terminal; pipe a video into it" in ran.stderr


GST = """#!{python}
import pathlib, sys
pathlib.Path({log!r}).write_text("\\n".join(sys.argv[1:]))
sys.stdout.buffer.write(pathlib.Path({data!r}).read_bytes())
sys.stdout.flush()
if {fails!r}:
    sys.stderr.write("Setting pipeline to PAUSED ...\\nERROR: from element /GstPipeline:p/GstV4l2Src:s: no device\\n")
    sys.exit(1)
"""


@pytest.fixture
def gstreamer(tmp_path, monkeypatch):
    """Puts a `gst-launch-1.0` on the path that gives lossless video in Matroska, as the real one does."""

    def make(count=8, *, fails=False):
        data = tmp_path / "data.mkv"
        write_coded(data, DISC[:count], rate=10) if count else data.touch()
        program = tmp_path / "bin/gst-launch-1.0"
        program.parent.mkdir()
        names = {"log": str(tmp_path / "log"), "data": str(data)}
        program.write_text(GST.format(python=sys.executable, fails=fails, **names))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return make


@pytest.mark.parametrize("end", ["", " ! appsink drop=1"])
def test_a_gstreamer_pipeline(gstreamer, tmp_path, end):
    gstreamer()
    (source,) = find_sources([f'filesrc location="a b.mp4" ! decodebin{end}'])
    with Playback(source, stop=threading.Event()) as playback:
        frames = list(playback)
    assert (tmp_path / "log").read_text().split("\n") == [
        *("-q", "filesrc", "location=a b.mp4", "!", "decodebin"),
        *("!", "videoconvert", "!", "matroskamux", "streamable=true", "!", "fdsink", "fd=1"),
    ]
    np.testing.assert_array_equal([frame.image_bgr for frame in frames], DISC)
    assert [float(frame.pts * playback.time_base) for frame in frames] == pytest.approx(np.arange(8) / 10)
    assert (playback.is_live, playback.drops) == (False, False)


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ("a ! b text=Hi!there ! c", ["a", "!", "b", "text=Hi!there", "!", "c"]),
        ("a !caps ! b", ["a", "!", "caps", "!", "b"]),
        ("a ! appsink", ["a"]),
        ("a ! appsink_like name=x ! b", ["a", "!", "appsink_like", "name=x", "!", "b"]),
    ],
)
def test_an_exclamation_mark_within_a_word_joins_nothing(pipeline, words):
    assert _words(pipeline) == words


def test_quotes_that_are_not_closed(cli, model, tmp_path):
    ran = cli(main, 'a ! textoverlay text="unclosed', "--model", model, "-o", tmp_path / "o.mp4")
    assert (ran.code, "GStreamer: this pipeline can't be read (No closing quotation)" in ran.err) == (2, True)


def test_a_live_pipeline_that_gives_nothing_is_lost(gstreamer, tmp_path, monkeypatch):
    monkeypatch.setattr("salema.runtime.sources.pipes._FIRST_PATIENCE_S", 0.3)
    gstreamer()
    program = tmp_path / "bin/gst-launch-1.0"
    program.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    (source,) = find_sources(["v4l2src ! x"])
    with pytest.raises(VideoError, match=r"^GStreamer: gave nothing for 0\.3 s$"):
        Playback(source)


def test_a_camera_pipeline_is_live_and_its_end_is_no_loss(gstreamer, cli, model, tmp_path):
    gstreamer()
    ran = cli(main, "nvarguscamerasrc ! nvvidconv", "--model", model, "-o", tmp_path / "o.mp4", "--every-frame")
    assert ran.code == 0, ran.err
    assert len(probe(tmp_path / "o.mp4")["images"]) == 8


def test_a_pipeline_that_fails_at_once(gstreamer):
    gstreamer(0, fails=True)
    (source,) = find_sources(["v4l2src ! x"])
    sentence = r"^GStreamer: from element /GstPipeline:p/GstV4l2Src:s: no device$"
    with pytest.raises(VideoError, match=sentence):
        Playback(source)


def test_a_pipeline_that_fails_on_the_way(gstreamer, cli, model, tmp_path):
    gstreamer(5, fails=True)
    ran = cli(main, "filesrc location=x ! d", "--model", model, "-o", tmp_path / "o.mp4")
    assert ran.code == 1
    assert "GStreamer: breaks off after 5 frames (from element" in ran.err.splitlines()[-1]
    assert len(probe(tmp_path / "o.mp4")["images"]) == 5


def test_without_gstreamer_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    (source,) = find_sources(["v4l2src ! x"])
    with pytest.raises(MissingDependencyError, match="apt install gstreamer1.0-tools"):
        Playback(source)


@pytest.mark.parametrize(
    ("pipeline", "is_live"),
    [
        ("v4l2src ! x", True),
        ("uridecodebin uri=rtsp://a/b ! x", True),
        ("videotestsrc is-live=true ! x", True),
        ("videotestsrc num-buffers=9 ! x", False),
        ("filesrc location=a ! x", False),
        ("multifilesrc location=a ! x", False),
        ("uridecodebin uri=file:///a/b.mp4 ! x", False),
        ("uridecodebin3 uri='file:///a/b c.mp4' ! x", False),
    ],
)
def test_a_pipeline_that_reads_files_is_not_live(pipeline, is_live):
    (source,) = find_sources([pipeline])
    assert source.is_live_pipeline == is_live
