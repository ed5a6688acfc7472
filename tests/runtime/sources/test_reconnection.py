"""Sources that are lost and come back: with a simulated clock, and with a real RTSP server that is cut off."""

import threading
from fractions import Fraction

import numpy as np
import pytest

from salema.runtime.errors import VideoError
from salema.runtime.sources.frames import Frame
from salema.runtime.sources.live import Losses
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.reconnection import Reconnecting
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import find_sources


class Scripted:
    """A reader that gives frames and then ends, with or without an error."""

    name = "cam"
    time_base = Fraction(1, 10)

    def __init__(self, count, error=None):
        self._frames = [Frame(np.zeros((2, 2, 3), np.uint8), index, 1, index == 0) for index in range(count)]
        self._error, self.closed = error, False

    def __iter__(self):
        yield from self._frames
        if self._error:
            raise VideoError(f"cam: {self._error}")

    def close(self):
        self.closed = True


@pytest.fixture
def at_once(monkeypatch):
    """Waits are noted, not waited for."""
    waits = []

    class Event(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return self.is_set()

    return Event(), waits


def test_an_outage_is_waited_out_and_counted(at_once):
    stop, waits = at_once
    losses, told = Losses(), []
    first = Scripted(3, "timed out")
    tries = [VideoError("refused"), VideoError("refused"), VideoError("refused"), Scripted(2)]

    def reopen():
        result = tries.pop(0)
        if isinstance(result, VideoError):
            raise result
        return result

    live = iter(Reconnecting(first, reopen, 4, stop, losses, told.append))
    seen = [next(live) for _ in range(5)]
    assert [frame.starts_anew for frame in seen] == [True, False, False, True, False]
    assert [frame.pts for frame in seen] == [0, 1, 2, 3, 4]  # the outage took no time here
    assert first.closed
    assert losses.outages == 1
    assert 0 <= losses.outage_s < 1
    assert waits == [0.5, 0.5, 1, 2]
    assert told[0] == "cam: lost after 3 frames (timed out); connecting again"
    assert told[1].startswith("cam: back after ")


def test_time_goes_on_while_it_is_away(at_once, monkeypatch):
    stop, _ = at_once
    now = [100.0]
    monkeypatch.setattr("salema.runtime.sources.reconnection.time.monotonic", lambda: now[0])
    losses = Losses()
    live = iter(Reconnecting(Scripted(3), lambda: Scripted(3), 4, stop, losses, lambda _: None))
    seen = [next(live) for _ in range(3)]
    now[0] += 7.2
    seen += [next(live) for _ in range(3)]
    assert [frame.pts for frame in seen] == [0, 1, 2, 75, 76, 77]
    assert (losses.outages, losses.outage_s) == (1, pytest.approx(7.2))


def test_reconnection_gives_up_after_its_attempts_and_says_both_reasons(at_once):
    stop, waits = at_once

    def refuse():
        raise VideoError("cam: refused")

    live = iter(Reconnecting(Scripted(2, "timed out"), refuse, 9, stop, Losses(), lambda _: None))
    with pytest.raises(
        VideoError, match=r"cam: lost after 2 frames \(timed out\), and did not come back in 9 attempts"
    ):
        list(live)
    assert waits == [0.5, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_stop_during_an_outage_is_no_failure(at_once):
    stop, _ = at_once

    def refuse():
        stop.set()
        raise VideoError("cam: refused")

    assert len(list(Reconnecting(Scripted(2, "timed out"), refuse, 9, stop, Losses(), lambda _: None))) == 2


def test_no_attempts_is_an_end(at_once):
    stop, _ = at_once
    with pytest.raises(VideoError, match=r"cam: lost after 2 frames \(the stream ended\)$"):
        list(Reconnecting(Scripted(2), None, 0, stop, Losses(), lambda _: None))
    assert len(list(Reconnecting(Scripted(2), None, 0, stop, Losses(), lambda _: None, has_end=True))) == 2


def test_rtsp_over_an_outage(server):
    (source,) = find_sources([server.url])
    told = []
    with Playback(source, Selection(every_frame=True, max_frames=40), notify=told.append) as playback:
        assert (playback.is_live, playback.frame_count, playback.rate) == (True, 40, 25)
        seen = []
        for frame in playback:
            seen.append(frame)
            if len(seen) == 10:
                server.cut_off()
    assert server.clients == 2
    assert len(seen) == 40
    anew = [index for index, frame in enumerate(seen) if frame.starts_anew]
    assert len(anew) == 2
    assert 10 <= anew[1] < 40
    steps = np.diff([frame.pts / 90000 for frame in seen])
    assert steps.min() > 0
    assert steps[anew[1] - 1] == pytest.approx(playback.losses.outage_s + 1 / 25, abs=0.02)
    assert playback.losses.outages == 1
    assert "secret" not in " ".join(told)
