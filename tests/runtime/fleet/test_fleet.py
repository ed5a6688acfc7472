"""Datasets on a Ray cluster, whose workers and nodes are lost on the way."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from frame_folders import names_under, numbered, write_frames
from object_store import empty_bucket, keys_for, object_server, objects
from ray_cluster import RAY_WARNINGS, add_node, kill, meanwhile, nodes_started, wait_for, workers_of

from salema.runtime.cli.frame_bar import FrameBar
from salema.runtime.cli.run import main

pytestmark = [pytest.mark.filterwarnings(warning) for warning in RAY_WARNINGS]
OUT = "seeded-16_predictions"


@pytest.fixture(scope="module")
def scratch():
    """Where the nodes make temporary folders. A socket's path has 107 bytes at most: not pytest's folder."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def cluster(scratch):
    """A node of a core or two of them, which find an S3 server."""
    with object_server() as address, pytest.MonkeyPatch.context() as patch:
        for name, value in {**keys_for(address), "TMPDIR": str(scratch)}.items():
            patch.setenv(name, value)
        with nodes_started(1) as started:
            yield started


@pytest.fixture
def two_nodes(cluster):
    """Two for sure. The last test to ask for them loses one: the others take half the processes with one."""
    if not cluster.worker_nodes:
        add_node(cluster, 1)
    return cluster


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Six videos, of which the second is the longest."""
    folder = tmp_path_factory.mktemp("source")
    for place, name in enumerate("abcdef"):
        write_frames(folder / name, numbered(300 if name == "b" else 40), size=(64, 96), seed=place)
    return folder


@pytest.fixture(scope="module")
def options(model, source):
    """Of every run: the maps of one backend are the same to the bit."""
    return ("--dataset", "other", "--src", source, "--model", model, "--backend", "onnxruntime", "--threads", 1)


@pytest.fixture(scope="module")
def expected(options, tmp_path_factory):
    """What a local run writes, by its name."""
    folder = tmp_path_factory.mktemp("expected")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["salema-run", *map(str, options), "--dst", str(folder)])
        main()
    assert not stop.value.code
    return contents(folder)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in names_under(folder)}


def test_a_worker_that_is_killed_costs_nothing_but_time(cli, two_nodes, options, expected, tmp_path, monkeypatch):
    told, advance = [], FrameBar.advance
    monkeypatch.setattr(FrameBar, "advance", lambda bar, *counts: told.append(counts) or advance(bar, *counts))

    def killer():
        wait_for((tmp_path / OUT / "b/00020.png").exists)
        workers = wait_for(lambda: workers_of(two_nodes))
        for pid in workers:
            kill(pid)

    with meanwhile(killer):
        ran = cli(main, *options, "--dst", tmp_path, "--ray", two_nodes.address)
    assert ran.code == 0, ran.err
    assert "2 workers of 1 core, 2 nodes" in ran.err
    assert "note: a worker died while it ran b; another one runs that from its start" in ran.err
    assert ran.out == f"6 of 6 videos, 500 maps -> {tmp_path}\n"
    assert [sum(counts) for counts in zip(*told, strict=True)] == [500, 6]  # what is done again is counted once
    assert contents(tmp_path) == expected
    again = cli(main, *options, "--dst", tmp_path, "--ray", two_nodes.address, "--resume", "--json")
    assert json.loads(again.out)["skipped"] == 6
    assert contents(tmp_path) == expected


def test_ctrl_c_leaves_no_half_file_and_the_next_run_goes_on(cli, two_nodes, options, expected, tmp_path):
    arguments = [*options, "--dst", tmp_path, "--ray", two_nodes.address]
    command = [sys.executable, "-c", "from salema.runtime.cli.run import main; main()", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / OUT / "b/00010.png").exists)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.endswith("salema-run: interrupted; go on with --resume\n")
    assert not list(tmp_path.rglob(".*"))
    made = json.loads((tmp_path / OUT / "b/salema.json").read_text())
    assert (made["complete"], made["why_incomplete"]) == (False, "interrupted")
    assert cli(main, *arguments, "--resume").code == 0
    assert contents(tmp_path) == expected


def test_auto_is_tried_once_for_all_nodes_of_a_kind(cli, two_nodes, exported, tmp_path, monkeypatch):
    from salema.runtime.backends.tuning import RECORD_FILE
    from salema.runtime.fleet.fleet import Fleet

    model = tmp_path / "model"
    model.mkdir()
    (model / "model.onnx").write_bytes((exported() / "model.onnx").read_bytes())
    for name in "abcd":
        write_frames(tmp_path / "src" / name, numbered(200))
    opened, take = [], Fleet._opened
    monkeypatch.setattr(Fleet, "_opened", lambda self, member, how: opened.append(how) or take(self, member, how))
    arguments = ("--dataset", "other", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)
    ran = cli(main, *arguments, "--ray", two_nodes.address)
    assert ran.code == 0, ran.err
    first, second = opened
    assert json.loads(first.trial)["trials"]
    assert second.trial == first.trial  # with the times to the last digit
    assert not (model / RECORD_FILE).exists()


def test_a_node_that_is_lost_costs_nothing_but_time(cli, two_nodes, options, expected, tmp_path):
    def remover():
        wait_for((tmp_path / OUT / "b/00020.png").exists)
        (node,) = two_nodes.worker_nodes
        two_nodes.remove_node(node, allow_graceful=False)

    with meanwhile(remover):
        ran = cli(main, *options, "--dst", tmp_path, "--ray", two_nodes.address)
    assert ran.code == 0, ran.err
    assert "note: the node of a worker was lost while it ran" in ran.err
    assert contents(tmp_path) == expected


def test_a_video_that_kills_its_worker_is_given_up_and_the_others_are_run(cli, cluster, options, expected, tmp_path):
    first = tmp_path / OUT / "b/00001.png"

    def poison():
        for _ in range(3):
            wait_for(first.exists)
            first.unlink()
            for pid in workers_of(cluster):
                kill(pid)

    with meanwhile(poison):
        ran = cli(main, *options, "--dst", tmp_path, "--ray", cluster.address, "--jobs", 1)
    assert ran.code == 1
    assert "salema-run: b: given up: its worker died 3 times while it ran it\n" in ran.err
    assert ran.err.endswith("salema-run: 1 of 6 videos failed; the others are done\n")
    whole = {name: data for name, data in expected.items() if not name.startswith(f"{OUT}/b/")}
    assert {name: data for name, data in contents(tmp_path).items() if not name.startswith(f"{OUT}/b/")} == whole


def test_a_dataset_in_an_object_store(cli, cluster, model, tmp_path):
    files = empty_bucket("data")
    for place, name in enumerate("ab"):
        write_frames(tmp_path / "src" / name, numbered(4), seed=place)
        for path in (tmp_path / "src" / name).iterdir():
            files.pipe_file(f"data/src/{name}/{path.name}", path.read_bytes())
    options = ("--dataset", "other", "--model", model, "--backend", "onnxruntime", "--threads", 1)
    assert cli(main, *options, "--src", tmp_path / "src", "--dst", tmp_path / "dst").code == 0
    remote = ("--src", "s3://data/src", "--dst", "s3://data/dst", "--ray", cluster.address)
    ran = cli(main, *options, *remote)
    assert ran.code == 0, ran.err
    assert objects(files, "data/dst") == contents(tmp_path / "dst")
    assert json.loads(cli(main, *options, *remote, "--resume", "--json").out)["skipped"] == 2


def test_nothing_is_left_on_the_nodes(cluster, scratch):
    assert [path.name for path in scratch.iterdir() if path.name != "ray"] == []  # its own goes with the cluster
    assert wait_for(lambda: not workers_of(cluster))


def test_signals_stay_with_the_command(cluster):
    from salema.runtime.fleet.cluster import connected

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with connected(cluster.address):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_video_that_fails_is_no_dead_worker(cli, cluster, model, tmp_path):
    for name in "ab":
        write_frames(tmp_path / "src" / name, numbered(3))
    (tmp_path / "src/a/0002.png").write_bytes(b"no image")
    arguments = ("--dataset", "other", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)
    ran = cli(main, *arguments, "--backend", "onnxruntime", "--ray", cluster.address)
    assert ran.code == 1
    assert f"salema-run: a: {tmp_path}/src/a/0002.png: can't be read as an image" in ran.err
    assert "1 of 2 videos, 3 maps" in ran.out


def test_a_node_that_cannot_see_a_folder_is_named(cli, cluster, model, tmp_path, monkeypatch):
    write_frames(tmp_path / "src/v", numbered(1))
    monkeypatch.chdir(tmp_path)
    arguments = ("--dataset", "other", "--model", model, "--ray", cluster.address)
    own = Path("/proc/self/cwd")  # another folder in each process
    ran = cli(main, *arguments, "--src", own / "src", "--dst", "dst")
    assert ran.code == 1
    assert f"can't see {own}/src/v/0001.png; mount it there too, or name a place by URL" in ran.err
    assert "salema-run: node " in ran.err
    ran = cli(main, *arguments, "--src", "src", "--dst", own / "dst")
    assert f"can't see {own}/dst; mount it there too" in ran.err
    assert names_under(tmp_path / "dst") == []


def test_a_node_with_another_version_is_named(cli, cluster, model, tmp_path, monkeypatch):
    from salema.runtime.fleet import cluster as of_cluster

    write_frames(tmp_path / "src/v", numbered(1))
    monkeypatch.setattr(of_cluster, "salema_version", lambda: "99.1")
    arguments = ("--dataset", "other", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)
    ran = cli(main, *arguments, "--ray", cluster.address)
    assert ran.code == 1
    assert ", and the command was started with 99.1; install the same version\n" in ran.err


@pytest.mark.parametrize(
    ("choice", "code", "sentence"),
    [
        (("--backend", "tensorrt"), 1, "no TensorRT engine yet"),
        (("--backend", "tensorflow"), 2, "--backend tensorflow: not one of"),
        (("--device", "cuda"), 1, "--device cuda: the cluster has no GPU that Ray knows of"),
        (("--threads", 3), 1, "--threads 3: no node of the cluster has 3 CPUs; the largest has 1"),
    ],
)
def test_what_no_worker_can_do_is_one_sentence(cli, cluster, model, tmp_path, choice, code, sentence):
    write_frames(tmp_path / "src/v", numbered(1))
    arguments = ("--dataset", "other", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)
    ran = cli(main, *arguments, "--ray", cluster.address, *choice)
    assert ran.code == code
    assert sentence in ran.err
