"""`--show`, with a stand-in for OpenCV's window functions: the tests run without a display."""

import json
import socket
import time
from pathlib import Path

import cv2
import pytest
from videos import probe

from salema.runtime.cli.run import main


class Screen:
    """Notes what is shown; closes after some pictures if told to, by a key or by its frame."""

    def __init__(self, close_after=None, key=-1):
        self.shown, self.waits_ms, self.visible = [], [], False
        self._close_after, self._key = close_after, key

    def named(self, title, _flags):
        self.title, self.visible, self._start = title, True, time.monotonic()

    def show(self, title, image):
        assert (title, self.visible) == (self.title, True)
        self.shown.append(image)

    def wait(self, milliseconds):
        self.waits_ms.append(milliseconds)
        time.sleep(milliseconds / 1000)
        self.seconds = time.monotonic() - self._start
        if len(self.shown) == self._close_after:
            self.visible = self._key >= 0
            return self._key
        return -1

    def is_visible(self, *_):
        if not self.visible:  # as Qt does once its last window is gone
            raise cv2.error("NULL guiReceiver (please create a window)")
        return 1.0

    def destroy(self, title):
        assert title == self.title
        self.visible = False


@pytest.fixture
def screen(monkeypatch):
    def make(**options):
        made = Screen(**options)
        monkeypatch.setenv("DISPLAY", ":0")
        monkeypatch.setattr("salema.runtime.output.window._has_display", lambda: True)
        monkeypatch.setattr(cv2, "namedWindow", made.named)
        monkeypatch.setattr(cv2, "resizeWindow", lambda *_: None)
        monkeypatch.setattr(cv2, "imshow", made.show)
        monkeypatch.setattr(cv2, "waitKey", made.wait)
        monkeypatch.setattr(cv2, "getWindowProperty", made.is_visible)
        monkeypatch.setattr(cv2, "destroyWindow", made.destroy)
        return made

    return make


def test_every_picture_is_shown_no_faster_than_its_time(screen, cli, model, small_clip):
    made = screen()
    ran = cli(main, small_clip, "--model", model, "--no-video", "--show", "--view", "side-by-side")
    assert ran.code == 0, ran.err
    assert [image.shape for image in made.shown] == 12 * [(64, 192, 3)]
    assert made.title == f"salema: {small_clip}"
    assert not made.visible
    assert ran.out.endswith("-> the window\n")
    assert len(made.waits_ms) >= 12
    assert max(made.waits_ms) <= 50  # in small pieces, so that a stop need not wait for the time of a picture
    assert made.seconds > 0.35


@pytest.mark.parametrize("key", [-1, ord("q"), 27])
def test_a_window_that_is_closed_ends_the_run_well(screen, cli, model, small_clip, tmp_path, key):
    made = screen(close_after=5, key=key)
    ran = cli(main, small_clip, "--model", model, "-o", tmp_path / "o.mp4", "--show", "--json")
    assert ran.code == 0, ran.err
    assert len(made.shown) == 5
    summary = json.loads(ran.out)
    assert (summary["frames"], summary["interrupted"], summary["error"]) == (4, False, None)
    assert summary["notes"] == ["the window was closed after 4 frames"]
    assert len(probe(tmp_path / "o.mp4")["images"]) == 4


def test_an_opencv_without_windows_says_so(screen, cli, model, small_clip, tmp_path, monkeypatch):
    screen()

    def refuse(*_):
        raise cv2.error("The function is not implemented. Rebuild the library with Windows, GTK+ 2.x or Cocoa support")

    monkeypatch.setattr(cv2, "namedWindow", refuse)
    ran = cli(main, small_clip, "--model", model, "-o", tmp_path / "o.mp4", "--show")
    assert ran.code == 1
    assert "--show: this OpenCV has no windows" in ran.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_one_window_at_a_time(screen, cli, model, small_clip, tmp_path):
    screen()
    ran = cli(main, small_clip, small_clip, "--model", model, "-o", tmp_path, "--show", "--jobs", 2)
    assert ran.code == 2
    assert "--show: one window at a time, and 2 sources would run at once; give --jobs 1" in ran.err


def test_a_display_that_nobody_serves_is_none(cli, model, small_clip, tmp_path, monkeypatch):
    """Qt would end the process."""
    monkeypatch.setenv("DISPLAY", ":987")
    ran = cli(main, small_clip, "--model", model, "-o", tmp_path / "o.mp4", "--show")
    assert ran.code == 1
    assert "--show: there is no display that can be opened" in ran.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_display_that_does_not_answer_is_none(cli, model, small_clip, tmp_path, monkeypatch):
    """As after a lost `ssh -X`: a server that takes the connection and never answers."""
    number = next(n for n in range(900, 1000) if not Path(f"/tmp/.X11-unix/X{n}").exists())
    with socket.socket() as server:
        server.bind(("127.0.0.1", 6000 + number))
        server.listen()
        monkeypatch.setenv("DISPLAY", f"127.0.0.1:{number}")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.setattr("salema.runtime.output.window._TRIAL_S", 0.5)
        ran = cli(main, small_clip, "--model", model, "--no-video", "--show")
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("salema-run: --show: there is no display that can be opened")
