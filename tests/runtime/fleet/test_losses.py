"""What a fleet does about workers and nodes that are lost or can't do their work, told by Ray's own errors."""

import threading
from types import SimpleNamespace

import pytest

from salema.runtime.errors import BackendError, ModelError, UnreachableError, UsageError, VideoError
from salema.runtime.fleet.cluster import import_ray
from salema.runtime.fleet.fleet import Fleet, _Member
from salema.runtime.fleet.losses import Losses
from salema.runtime.fleet.size import Size
from salema.runtime.fleet.worker import News, Opened


def raised(kind, *told, **named):
    """One of Ray's errors. It is imported by a test, not for all."""
    return getattr(import_ray().exceptions, kind)(*told, **named)


def killed():
    return raised("ActorDiedError")


def unavailable():
    return raised("ActorUnavailableError", "no answer", None)


def node_lost():
    return raised("RayActorError", error_msg="The actor died because its node has died.")


def no_memory():
    return raised(
        "OutOfMemoryError",
        "1 worker(s) were killed due to the node running low on memory."
        " Memory on the node (IP: 10.0.0.7, ID: f4d6) was 3.14GB used.\nMore.",
    )


class Answers:
    """Ray, as far as answers go: each is given when it is asked for, and raised if it is an error."""

    def __init__(self):
        self.exceptions = import_ray().exceptions
        self.killed, self.waiting = [], []

    def put(self, model):
        return model

    def kill(self, actor):
        self.killed.append(actor)

    def wait(self, asked, **_):
        return asked, []

    def get(self, answer):
        if isinstance(answer, Exception):
            raise answer
        return answer.value


class Given:
    """A reference to an answer."""

    def __init__(self, value):
        self.value = value


class Actor:
    """Takes calls, and answers none."""

    def __getattr__(self, name):
        return SimpleNamespace(remote=lambda *_: object())


def video(name):
    return SimpleNamespace(name=name, frames=(1, 2))


VIDEO = video("v")


@pytest.fixture
def fleet(monkeypatch):
    cluster = SimpleNamespace(ray=Answers(), nodes=list)
    said = []
    made = Fleet(cluster, Size(2, 1), SimpleNamespace(arguments={"backend": "ncnn"}), None, said.append)
    made.said = said
    counts = made.counts = []
    made._told = SimpleNamespace(note=said.append, frames=counts.append)
    made._work, made._stop = None, threading.Event()
    made.added = []
    monkeypatch.setattr(made, "_add", lambda: made.added.append(1))
    return made


def member_of(fleet, node="n1", *, is_open=True, runs=None):
    member = _Member(Actor(), "zen", node, is_there=True, is_open=is_open, video=runs)
    fleet._members.append(member)
    return member


def answer(fleet, member, given, then):
    is_raised = isinstance(given, import_ray().exceptions.RayError)
    fleet._asked = {given if is_raised else Given(given): (member, then)}
    asked, fleet._ask = fleet._ask, lambda *_: None  # what it asks next stays unanswered
    try:
        fleet._take_answers()
    finally:
        fleet._ask = asked


def lose(fleet, *errors):
    """Has a video lost by each of these errors; returns what became of it, or None if it is run again."""
    for error in errors:
        fleet._todo.clear()
        answer(fleet, member_of(fleet, runs=VIDEO), error, fleet._heard)
        assert [each.name for each in fleet._todo] == ([] if fleet._ended else ["v"])
    return fleet._ended[0][1] if fleet._ended else None


def test_three_deaths_are_its_own_fault(fleet):
    assert lose(fleet, killed(), killed()) is None
    assert fleet.said == ["a worker died while it ran v; another one runs that from its start"] * 2
    found = lose(fleet, no_memory())
    assert isinstance(found, VideoError)
    assert str(found) == "given up: its worker died 3 times while it ran it (out of memory)"


def test_lost_nodes_are_not_but_not_for_ever(fleet):
    assert lose(fleet, *[unavailable(), node_lost()] * 4, killed()) is None
    assert str(lose(fleet, unavailable())) == "given up: its worker died 10 times while it ran it"


def test_after_a_stop_nothing_is_run_again(fleet):
    fleet._stop.set()
    answer(fleet, member_of(fleet, runs=VIDEO), killed(), fleet._heard)
    assert (list(fleet._ended), list(fleet._todo), fleet.added) == ([(VIDEO, None)], [], [])


def test_frames_that_are_done_again_are_taken_back(fleet):
    member, idle = member_of(fleet, runs=VIDEO), member_of(fleet)
    member.frames, fleet._idle = 7, [idle]
    answer(fleet, member, killed(), fleet._heard)
    assert (fleet.counts, fleet._ray.killed, idle.video, fleet._members) == ([-7], [member.actor], VIDEO, [idle])


def test_a_fault_of_ours_is_raised_as_it_is(fleet):
    fault = raised(
        "RayTaskError", "news", "Traceback ...", KeyError("x"), "worker", 1, "10.0.0.1"
    ).as_instanceof_cause()
    with pytest.raises(KeyError):
        answer(fleet, member_of(fleet, runs=VIDEO), fault, fleet._heard)


def not_begun(ip="10.0.0.7"):
    trace = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'gone'"
    task = raised("RayTaskError", "__init__", trace, ImportError("gone"), "ray::Worker", 1, ip)
    return raised("ActorDiedError", task)


def test_a_node_that_begins_no_worker_leaves_the_others_at_work(fleet):
    fleet._todo.append(VIDEO)
    good = member_of(fleet, is_open=False)
    for _ in range(4):
        answer(fleet, member_of(fleet, "", is_open=False), not_begun(), fleet._looked)
    assert (fleet.added, fleet.said, fleet._members) == ([1, 1], [], [good])
    answer(fleet, good, Opened("ncnn", "ncnn", None), fleet._opened)
    why = "node 10.0.0.7: can't begin (ModuleNotFoundError: No module named 'gone')"
    assert fleet.said == [f"a worker is left out: {why}", "workers run it in ncnn"]
    assert good.video is VIDEO


def test_a_node_without_memory_for_a_worker_is_named(fleet):
    member_of(fleet)
    answer(fleet, member_of(fleet, "", is_open=False), no_memory(), fleet._looked)
    why = "has too little memory for a worker; give its workers more cores each, by --threads"
    assert fleet.said == [f"a worker is left out: node 10.0.0.7: {why}"]


def test_where_no_worker_begins_it_is_the_end(fleet):
    fleet._todo.append(VIDEO)
    for _ in range(2):
        answer(fleet, member_of(fleet, "", is_open=False), not_begun(), fleet._looked)
    with pytest.raises(BackendError, match=r"3 workers in turn could not begin; node 10\.0\.0\.7: can't begin \(Mod"):
        answer(fleet, member_of(fleet, "", is_open=False), not_begun(), fleet._looked)


def test_the_first_worker_that_cannot_open_the_model_is_not_the_end(fleet):
    first, second, third = (member_of(fleet, node, is_open=False) for node in ("n1", "n2", "n3"))
    answer(fleet, first, BackendError("node n1: No space left on device"), fleet._opened)
    answer(fleet, second, ModelError("no engine"), fleet._opened)
    assert fleet.said == []
    answer(fleet, third, Opened("ncnn", "ncnn", None), fleet._opened)
    full, without = (f"a worker is left out: node {why}" for why in ("n1: No space left on device", "n2: no engine"))
    assert fleet.said == [full, without, "workers run it in ncnn"]


def test_the_last_one_is(fleet):
    first, second = (member_of(fleet, node, is_open=False) for node in ("n1", "n2"))
    answer(fleet, first, BackendError("no GPU"), fleet._opened)
    with pytest.raises(BackendError, match="no driver"):
        answer(fleet, second, BackendError("no driver"), fleet._opened)


def test_a_wrong_option_is_wrong_everywhere(fleet):
    first, _ = (member_of(fleet, node, is_open=False) for node in ("n1", "n2"))
    with pytest.raises(UsageError, match="--backend x"):
        answer(fleet, first, UsageError("--backend x: not one of ..."), fleet._opened)


def unreached(name):
    return News(has_ended=True, outcome=UnreachableError(f"s3://{name}: can't be reached (Forbidden)"))


def test_a_node_that_can_fetch_nothing_is_left_out_and_loses_no_video(fleet):
    names, bad = "abcdef", member_of(fleet, "n1")
    good = member_of(fleet, "n2", runs=video("long"))
    fleet._todo.extend(map(video, names))
    fleet._give(bad)
    for name in "abc":
        assert bad.video.name == name
        answer(fleet, bad, unreached(name), fleet._heard)
    assert fleet._members == [good]
    assert [each.name for each in fleet._todo] == [*"defabc"]
    assert fleet.said[0] == "a is tried once more: s3://a: can't be reached (Forbidden)"
    assert fleet.said[-1] == "a worker is left out: node n1: it can't fetch its videos, or send their maps"
    assert not fleet._ended


def test_a_video_that_nobody_can_fetch_fails_and_a_node_that_fetches_others_stays():
    losses, unreachable = Losses(), UnreachableError("s3://a: can't be reached")
    assert losses.is_missed("a", "n1", unreachable)
    assert not losses.is_missed("a", "n2", unreachable)
    assert losses.is_missed("b", "n1", unreachable)
    assert not losses.is_missed("c", "n1", VideoError("no image"))  # which was fetched
    assert losses.is_missed("d", "n1", unreachable)
    assert not losses.is_cut_off("n1")
