"""Which losses are a video's own fault."""

import threading
from types import SimpleNamespace

import pytest

from salema.runtime.errors import VideoError
from salema.runtime.fleet.fleet import Fleet, Size, workers_that_fit


class UnavailableError(Exception):
    pass


@pytest.fixture
def fleet():
    ray = SimpleNamespace(put=lambda model: model, exceptions=SimpleNamespace(ActorUnavailableError=UnavailableError))
    made = Fleet(SimpleNamespace(ray=ray), Size(1, 1), SimpleNamespace(arguments={"backend": "auto"}), None, print)
    made._told, made._stop = SimpleNamespace(note=[].append), threading.Event()
    return made


VIDEO = SimpleNamespace(name="v")


def lose(fleet, *errors):
    """Has a video lost by each of these errors; returns what became of it, or None if it is run again."""
    for error in errors:
        fleet._take_back(VIDEO, error)
    ended = list(fleet._ended)
    assert len(fleet._todo) == len(errors) - len(ended)
    return ended[0][1] if ended else None


def test_three_deaths_are_its_own_fault(fleet):
    assert lose(fleet, Exception("died"), Exception("died")) is None
    fleet._todo.clear()
    found = lose(fleet, Exception("killed due to the node running low on memory"))
    assert isinstance(found, VideoError)
    assert str(found) == "given up: its worker died 3 times while it ran it (out of memory)"


def test_lost_nodes_are_not_but_not_for_ever(fleet):
    lost = [UnavailableError(), Exception("The actor died because its node has died.")]
    assert lose(fleet, *lost * 4, Exception("died")) is None
    fleet._todo.clear()
    assert str(lose(fleet, UnavailableError())) == "given up: its worker died 10 times while it ran it"


def test_after_a_stop_nothing_is_run_again(fleet):
    fleet._stop.set()
    fleet._take_back(VIDEO, Exception("died"))
    assert (list(fleet._ended), list(fleet._todo)) == ([(VIDEO, None)], [])


def test_frames_that_are_done_again_are_taken_back(fleet, monkeypatch):
    killed, counts = [], []
    member = SimpleNamespace(actor="actor", kind="", video=VIDEO, frames=7, is_open=True)
    idle = SimpleNamespace(actor=SimpleNamespace(begin=SimpleNamespace(remote=[].append)), video=None)
    fleet._ray.kill, fleet._told.frames = killed.append, counts.append
    fleet._members, fleet._idle = [member, idle], [idle]
    monkeypatch.setattr(fleet, "_ask_news", lambda _: None)
    fleet._lost(member, Exception("died"))
    assert (counts, killed, idle.video, fleet._members) == ([-7], ["actor"], VIDEO, [idle])


def test_how_many_workers_fit():
    nodes = [SimpleNamespace(cores=cores, gpus=gpus) for cores, gpus in ((8, 0), (3, 1), (4, 4), (0, 0))]
    cluster = SimpleNamespace(nodes=lambda: nodes)
    fits = [workers_that_fit(cluster, *each) for each in ((1, 0), (2, 0), (4, 0), (9, 0), (1, 1), (2, 1))]
    assert fits == [15, 7, 3, 0, 5, 3]
