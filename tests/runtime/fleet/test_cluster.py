"""Addresses where no cluster is."""

import socket
import sys

import pytest
from ray_cluster import RAY_WARNINGS

from salema.runtime.cli.run import main
from salema.runtime.fleet.cluster import import_ray

pytestmark = [pytest.mark.filterwarnings(warning) for warning in RAY_WARNINGS]


@pytest.fixture
def arguments(model, tmp_path):
    (tmp_path / "src/v").mkdir(parents=True)
    (tmp_path / "src/v/1.png").touch()
    return ("--dataset", "other", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)


@pytest.fixture
def dead():
    """A port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_where_no_cluster_runs_the_sentence_says_how_to_start_one(cli, arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    import_ray()  # with its settings, which it reads once
    # Ray looks through the machine's processes, and finds clusters that other tests have started.
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)
    for bare in (("--ray",), ("--ray", "--resume")):
        ran = cli(main, *arguments, *bare)
        assert ran.code == 1
        assert ran.err == (
            "salema-run: --ray: no Ray cluster runs on this machine, and RAY_ADDRESS is not set; start one with: ray"
            " start --head, or take this machine's cores with: --ray local\n"
        )
    assert not (tmp_path / "dst").exists()


def test_a_folder_for_sockets_whose_path_is_too_long_is_told(cli, arguments, tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    ran = cli(main, *arguments, "--ray", "local")
    assert ran.code == 1
    assert ran.err.endswith("; set TMPDIR to a short path\n")
    assert not list(long.iterdir())


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_nobody_answers_it_is_said_soon(cli, arguments, dead, monkeypatch, scheme):
    ran = cli(main, *arguments, "--ray", f"{scheme}127.0.0.1:{dead}")
    assert ran.code == 1
    assert f":{dead} (Connection refused); start one with: ray start --head" in ran.err
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{dead}")
    assert f":{dead} (Connection refused)" in cli(main, *arguments, "--ray").err


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("--ray", "nonsense"), 2, "--ray nonsense: no address; give HOST:PORT, auto or local"),
        (("--ray", "host:port"), 2, "--ray host:port: no address; give HOST:PORT, auto or local"),
        (("--ray", "local", "--threads", 0), 2, "--threads 0: give 1 to 1024"),
        (("--ray", "local", "--device", "cuda:1"), 2, "--device cuda:1: Ray gives each worker its GPU; give --device"),
        (("--ray", "local", "--model", "absent"), 1, "absent: no such model"),
    ],
)
def test_usage(cli, arguments, options, code, sentence):
    ran = cli(main, *arguments, *options)
    assert ran.code == code
    assert sentence in ran.err


def test_without_ray_the_sentence_says_what_to_install(cli, arguments, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    ran = cli(main, *arguments, "--ray")
    assert ran.code == 1
    assert ran.err == "salema-run: --ray: Ray is missing; install it with: pip install 'salema[ray]'\n"


def test_ray_is_for_a_dataset(cli):
    ran = cli(main, "video.mp4", "--ray")
    assert (ran.code, ran.err) == (2, "salema-run: --ray: for --dataset only; leave it out\n")
