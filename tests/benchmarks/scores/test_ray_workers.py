"""Scores made on a Ray cluster, whose workers are killed on the way."""

import json
import tempfile
from concurrent.futures import Future

import numpy as np
import pytest
from eval_maps import predict
from object_store import empty_bucket, keys_for, object_server
from ray_cluster import RAY_WARNINGS, kill, meanwhile, nodes_started, wait_for, workers_of
from synthetic import write_dataset

from salema.benchmarks.maps.fixations import OtherFixations, Places
from salema.benchmarks.metrics.protocols import find_protocol
from salema.benchmarks.scores import ray_workers
from salema.benchmarks.scores.cli import main
from salema.runtime.errors import BackendError
from salema.runtime.fleet.cluster import import_ray

pytestmark = [pytest.mark.filterwarnings(warning) for warning in RAY_WARNINGS]


@pytest.fixture(scope="module")
def cluster():
    """A node of two cores, which finds an S3 server."""
    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as scratch,  # for the node's logs too
        object_server() as address,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in {**keys_for(address), "TMPDIR": scratch}.items():
            patch.setenv(name, value)
        with nodes_started(2) as started:
            yield started


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("scores")
    made = write_dataset(root / "data", "other", videos=6, frames=40)
    (made.truth / made.videos[1] / f"fixation/{made.frame_names[3]}.png").write_bytes(b"no image")
    return made, predict(made, root / "pred")


def test_scores_are_those_of_a_local_run_whatever_dies(cli, cluster, data, tmp_path, monkeypatch):
    made, pred = data
    arguments = ("--pred", "pred", "--gt", made.truth, "--dataset", "other", "--protocol", "dhf1k")
    monkeypatch.setattr(ray_workers, "_FRAMES_A_JOB", 4)
    monkeypatch.chdir(pred.parent)  # not the nodes' own
    here = cli(main, *arguments, "--json", tmp_path / "here.json", "--jobs", 1)

    def killer():
        kill(wait_for(lambda: next(iter(workers_of(cluster, b"ray::_do")), None)))

    with meanwhile(killer):
        there = cli(main, *arguments, "--json", tmp_path / "there.json", "--ray", cluster.address)
    unseen = ("--pred", pred, "--gt", "/proc/self/cwd/data", "--dataset", "other", "--ray", cluster.address)
    refused = cli(main, *unseen)
    assert (there.code, here.code) == (1, 1)
    assert there.err == here.err
    assert "1 file is at fault" in there.err
    assert there.out == here.out
    assert (tmp_path / "there.json").read_bytes() == (tmp_path / "here.json").read_bytes()
    assert json.loads((tmp_path / "there.json").read_text())["models"][0]["frames"] == 239
    assert refused.code == 1
    assert "can't see /proc/self/cwd/data; mount it there too" in refused.err


def test_so_are_those_of_files_at_urls(cli, cluster, tmp_path):
    made = write_dataset(tmp_path / "data", "other", videos=2)
    predict(made, tmp_path / "pred")
    files = empty_bucket("data")
    for name in ("data", "pred"):
        files.put(str(tmp_path / name), f"data/{name}", recursive=True)
    for name, place, more in (("here", tmp_path, ()), ("there", "s3://data", ("--ray", cluster.address))):
        options = ("--pred", f"{place}/pred", "--gt", f"{place}/data", "--dataset", "other", *more)
        ran = cli(main, *options, "--json", tmp_path / f"{name}.json")
        assert ran.code == 0, ran.err
    assert (tmp_path / "there.json").read_bytes() == (tmp_path / "here.json").read_bytes()
    refused = cli(main, *options[:3], "s3://data/none", *options[4:])
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert refused.err.startswith("salema-eval: s3://data/none: no such folder")


def test_maps_that_a_model_makes_are_refused(cli, data):
    made, _ = data
    ran = cli(main, "--model", "m", "--src", made.source, "--gt", made.truth, "--dataset", "other", "--ray")
    assert ran.code == 2
    assert "--ray scores maps on disk: write them with salema-run --dataset --ray, and give --pred" in ran.err


def settled(frames, kills):
    """What becomes of frames some of which kill their worker; and how often tasks were started."""
    ray = import_ray()
    started = []

    def start(some):
        started.append(list(some))
        future, done = Future(), Future()
        if any(frame in kills for frame in some):
            done.set_exception(ray.exceptions.WorkerCrashedError())
        else:
            done.set_result(([index for _, index in some], {}))
        ray_workers._settle(ray, future, some, start, done)
        return future

    return start(frames).result(timeout=1), started


def test_of_frames_that_kill_their_worker_the_others_are_scored():
    frames = [("v", 0), ("v", 1), ("w", 2)]
    assert settled(frames, []) == (([0, 1, 2], {}), [frames])
    (results, failed), started = settled(frames, [("v", 1)])
    assert results == [0, None, 2]
    assert failed == {("v", 1): "v: frame 2 was given up: its worker died 3 times"}
    assert started == [frames, *([frame] for frame in frames)]


def test_what_a_task_raises_is_raised_here():
    ray = import_ray()
    future, done = Future(), Future()
    done.set_exception(ray.exceptions.RayTaskError("_do", "Traceback", ValueError("no map"), "worker", 1, "10.0.0.1"))
    ray_workers._settle(ray, future, [("v", 0), ("v", 1)], None, done)
    with pytest.raises(ValueError, match="no map"):
        future.result(timeout=1)


def test_a_cluster_that_is_lost_is_no_dead_worker():
    ray = import_ray()
    for error in (ray.exceptions.RaySystemError("the connection was lost"), ConnectionError("gone")):
        future, done = Future(), Future()
        done.set_exception(error)
        ray_workers._settle(ray, future, [("v", 0), ("v", 1)], None, done)
        with pytest.raises(BackendError, match=r"^--ray: the cluster gives no more answers \(.*(lost|gone)\)"):
            future.result(timeout=1)


def test_a_cluster_that_takes_no_more_tasks_is_not_waited_for():
    ray = import_ray()

    def refuse(_):
        raise ConnectionError("gone")

    future, done = Future(), Future()
    done.set_exception(ray.exceptions.WorkerCrashedError())
    ray_workers._settle(ray, future, [("v", 0), ("v", 1)], refuse, done)
    with pytest.raises(BackendError, match="gone"):
        future.result(timeout=1)


def test_the_choice_of_other_frames_can_be_sent():
    import pickle

    places = {name: [Places((4, 4), np.array([place], np.int32))] for place, name in enumerate("abc")}
    others = OtherFixations(places, find_protocol("exact", "other"), 0, first=places)
    sent = pickle.loads(pickle.dumps(others))
    np.testing.assert_array_equal(sent.at("b", 0, (4, 4)), others.at("b", 0, (4, 4)))
