"""Live sources over the loopback: an RTSP server, cameras and streams over HTTP."""

import contextlib
import functools
import http.server
import itertools
import json
import os
import signal
import socket
import subprocess
import threading
import time

import cv2
import numpy as np
import pytest
from limits import script
from videos import outputs, probe, write_clip

from salema.export.weights.seeded import moving_disc
from salema.runtime.cli.run import main
from salema.runtime.errors import VideoError
from salema.runtime.sources.frames import Frame
from salema.runtime.sources.live import Losses, Newest


def frames(count, start=0):
    return [Frame(np.zeros((2, 2, 3), np.uint8), start + index, 1, index == 0) for index in range(count)]


def test_the_newest_frame_is_taken_and_a_gap_is_not_lost():
    losses, stop = Losses(), threading.Event()
    taken, given, taken_again = threading.Event(), threading.Event(), threading.Event()

    def source():
        yield from frames(1)
        taken.wait(10)
        yield from frames(50, 100)  # its first one starts anew, and is dropped
        given.set()
        taken_again.wait(10)
        yield frames(2, 200)[1]

    newest = iter(Newest(source(), stop.is_set, losses))
    assert next(newest).pts == 0
    taken.set()
    assert given.wait(10)
    frame = next(newest)
    assert (frame.pts, frame.starts_anew, losses.dropped) == (149, True, 49)
    taken_again.set()
    frame = next(newest)
    assert (frame.pts, frame.starts_anew, losses.dropped) == (201, False, 49)
    assert list(newest) == []


def test_an_error_comes_after_the_last_frame():
    def breaks_off():
        yield from frames(1)
        raise VideoError("gone")

    newest = iter(Newest(breaks_off(), threading.Event().is_set, Losses()))
    assert next(newest).pts == 0
    with pytest.raises(VideoError, match="gone"):
        next(newest)


def test_a_stop_ends_a_wait_for_a_frame():
    stop, go_on = threading.Event(), threading.Event()

    def silent():
        go_on.wait(10)
        yield from ()

    threading.Timer(0.1, stop.set).start()
    start = time.monotonic()
    assert list(Newest(silent(), stop.is_set, Losses())) == []
    assert time.monotonic() - start < 5
    go_on.set()


def test_the_command_on_a_camera_that_comes_and_goes(server, model, tmp_path):
    """Interrupted as users end a camera; the file must play, and hold the outage's time."""
    command = [script("salema-run"), server.url, "--model", model, "-o", tmp_path / "o.mp4", "--json"]
    command += ["--maps", tmp_path / "maps"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def maps():
        return len(list(tmp_path.glob("maps/0*.png")))

    def wait(until):
        deadline = time.monotonic() + 60
        while not until():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    try:
        wait(lambda: maps() >= 25)
        server.cut_off()
        wait(lambda: server.clients == 2)
        before = maps()
        wait(lambda: maps() >= before + 25)
    finally:
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    summary = json.loads(out)
    assert (summary["interrupted"], summary["error"], summary["outages"]) == (True, None, 1)
    assert summary["frames_lost"] == pytest.approx(25 * summary["outage_s"], abs=1)
    assert f"lost once, for {summary['outage_s']:.1f} s in all: about {summary['frames_lost']} frames" in err
    assert "secret" not in out + err
    after = probe(tmp_path / "o.mp4")
    assert len(after["images"]) == summary["frames"]
    # On a busy machine the last frame before the loss is a while old by then.
    assert -0.5 < max(np.diff(after["times"])) - summary["outage_s"] < 2
    assert len(outputs(tmp_path / "maps")) == summary["frames"]
    assert [path.name for path in outputs(tmp_path)] == ["maps", "o.mp4"]


def test_a_slow_network_takes_the_newest_frame(server, cli, model, tmp_path, monkeypatch):
    from salema.runtime.stream import SaliencyStream

    infer = SaliencyStream.infer
    monkeypatch.setattr(SaliencyStream, "infer", lambda *args: time.sleep(0.2) or infer(*args))
    ran = cli(main, server.url, "--model", model, "-o", tmp_path / "o.mp4", "--max-frames", 200, "--duration", 2)
    assert ran.code == 0, ran.err
    kept = len(probe(tmp_path / "o.mp4")["images"])
    assert 5 <= kept <= 11
    dropped = int(ran.err.split(" frames came while the network was busy")[0].split()[-1])
    assert 49 <= kept + dropped <= 52


def test_the_most_frames_are_those_that_were_run(server, cli, model, tmp_path, monkeypatch):
    from salema.runtime.stream import SaliencyStream

    infer = SaliencyStream.infer
    monkeypatch.setattr(SaliencyStream, "infer", lambda *args: time.sleep(0.1) or infer(*args))
    ran = cli(main, server.url, "--model", model, "-o", tmp_path / "o.mp4", "--max-frames", 8)
    assert ran.code == 0, ran.err
    assert len(probe(tmp_path / "o.mp4")["images"]) == 8
    assert int(ran.err.split(" frames came while the network was busy")[0].split()[-1]) >= 6


@pytest.mark.parametrize("scheme", ["http", "rtsp", "tcp"])
def test_ctrl_c_while_a_server_does_not_answer(model, tmp_path, scheme):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/x"
        command = [script("salema-run"), url, "--model", str(model)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        connection, _ = silent.accept()
        with connection:
            time.sleep(0.5)
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert time.monotonic() - start < 3
    assert (process.returncode, out, err.splitlines()[-1]) == (130, "", "salema-run: interrupted")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_an_error_at_once(cli, model, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    ran = cli(main, f"rtsp://me:secret@127.0.0.1:{port}/x", "--model", model, "-o", tmp_path / "o.mp4")
    assert ran.code == 1
    sentence = f"salema-run: rtsp://127.0.0.1:{port}/x: can't be read as a video (Connection refused)"
    assert ran.err.splitlines()[-1] == sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.h264"])
def test_a_file_behind_a_url_is_no_live_source(cli, model, tmp_path, name):
    write_clip(tmp_path / name, moving_disc(30, 64, 96))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{web.server_address[1]}/{name}"
        ran = cli(main, url, "--model", model, "-o", tmp_path / "o.mp4")
        web.shutdown()
    assert ran.code == 0, ran.err
    assert ran.out.startswith("30 frames in ")
    assert "dropped" not in ran.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_the_source_is_silent(model, tmp_path, number):
    """A pipe that gives some frames and then neither more nor an end."""
    clip = write_clip(tmp_path / "a.mkv", moving_disc(30, 64, 96))
    reading, writing = os.pipe()
    command = [script("salema-run"), "-", "--model", model, "-o", tmp_path / "o.mp4", "--maps", tmp_path / "maps"]
    process = subprocess.Popen(
        list(map(str, command)), stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.close(reading)
    try:
        os.write(writing, clip.read_bytes())
        deadline = time.monotonic() + 60
        while not (tmp_path / "maps/0010.png").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.5)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    finally:
        os.close(writing)
        process.kill()
    assert process.returncode == 130, err
    count = int(out.split()[0])
    assert 10 <= count <= 30
    assert len(probe(tmp_path / "o.mp4")["images"]) == count
    assert "Fatal" not in err


class _Mjpeg(http.server.BaseHTTPRequestHandler):
    """A camera that sends ten pictures a second without end, as many do over HTTP."""

    log_message = lambda *_: None  # noqa: E731

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with contextlib.suppress(OSError):
            for index in itertools.count():
                data = cv2.imencode(".jpg", moving_disc(8, 64, 96)[index % 8])[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                time.sleep(0.1)


class _Chunked(http.server.BaseHTTPRequestHandler):
    """Sends a file as it comes, without telling how long it is."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests += 1
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):
            for start in range(0, len(self.server.data), 4000):
                chunk = self.server.data[start : start + 4000]
                self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def chunked(tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Chunked) as web:
        web.daemon_threads, web.block_on_close, web.requests = True, False, 0
        web.data = write_clip(tmp_path / "a.ts", moving_disc(40, 64, 96), audio="aac").read_bytes()
        web.url = f"http://127.0.0.1:{web.server_address[1]}/stream"
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield web
        web.shutdown()


def test_a_stream_without_length_that_ends_has_ended(chunked, cli, model, tmp_path):
    ran = cli(main, chunked.url, "--model", model, "-o", tmp_path / "o.mp4", "--reconnects", 1)
    assert ran.code == 0, ran.err
    assert chunked.requests == 1
    assert "dropped" not in ran.err
    after = probe(tmp_path / "o.mp4")
    assert len(after["images"]) == 40
    assert after["sound_s"][0] == pytest.approx(40 / 25, abs=0.1)


def test_a_stream_that_is_said_to_be_live_is_fetched_again(chunked, cli, model, tmp_path):
    arguments = ("--live", "--every-frame", "--max-frames", 60)
    ran = cli(main, chunked.url, "--model", model, "-o", tmp_path / "o.mp4", *arguments)
    assert ran.code == 0, ran.err
    assert chunked.requests == 2
    assert "lost after 40 frames (the stream ended); connecting again" in ran.err
    assert "note: the sound is left out: that of a live source is not kept" in ran.err
    assert len(probe(tmp_path / "o.mp4")["images"]) == 60


def test_pictures_without_times_are_timed_as_they_come(cli, model, tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Mjpeg) as web:
        web.daemon_threads = True
        web.block_on_close = False
        threading.Thread(target=web.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{web.server_address[1]}/video?user=admin&pwd=secret"
        ran = cli(main, url, "--model", model, "-o", tmp_path / "o.mp4", "--every-frame", "--max-frames", 30)
        web.shutdown()
    assert ran.code == 0, ran.err
    assert "secret" not in ran.out + ran.err
    times = probe(tmp_path / "o.mp4")["times"]
    assert len(times) == 30
    # FFmpeg probes with the first ones, which come at once; at 25 a second all would take 1.2 s.
    assert np.median(np.diff(times)) == pytest.approx(0.1, abs=0.05)
