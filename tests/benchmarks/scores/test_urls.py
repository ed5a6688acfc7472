"""Maps and ground truth at URLs: a server on this machine that speaks S3."""

import json

import pytest
from eval_maps import predict
from object_store import empty_bucket, keys_for, object_server
from synthetic import write_dataset

from salema.benchmarks.scores import scoring
from salema.benchmarks.scores.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # moto's server and aiobotocore leave sockets open
THERE = ("--pred", "s3://data/pred", "--gt", "s3://data/DHF1K", "--dataset", "DHF1K")


@pytest.fixture(scope="module")
def server():
    with object_server() as address:
        yield address


@pytest.fixture
def here(server, tmp_path, monkeypatch):
    """The options of a local run; the variables that lead to the server are set."""
    for name, value in keys_for(server).items():
        monkeypatch.setenv(name, value)
    made = write_dataset(tmp_path / "DHF1K", "DHF1K", frames=2)
    return ("--pred", predict(made, tmp_path / "pred"), "--gt", made.source, "--dataset", "DHF1K")


@pytest.fixture
def store(here, tmp_path):
    """A file system with a bucket, `data`, that holds the same files."""
    files = empty_bucket("data")
    for folder in ("DHF1K/annotation", "pred"):
        files.put(str(tmp_path / folder), f"data/{folder}", recursive=True)
    return files


@pytest.fixture
def once_listed(monkeypatch):
    """Has a function called when all is listed, and nothing read yet."""

    def call(function):
        score = scoring.score_dataset

        def scored(*arguments, **options):
            function()
            return score(*arguments, **options)

        monkeypatch.setattr(scoring, "score_dataset", scored)

    return call


def test_scores_and_files_are_those_of_a_local_run(cli, here, store, tmp_path):
    drawn_elsewhere = ("--protocol", "dhf1k", "--start", 1, "--end", 2)  # s-AUC draws from all four videos
    for place, options in (("here", here), ("there", THERE)):
        files = ("--json", tmp_path / f"{place}.json", "--csv", tmp_path / f"{place}.csv")
        ran = cli(main, *options, *files, *drawn_elsewhere)
        assert ran.code == 0, ran.err
        (tmp_path / f"{place}.txt").write_text(ran.out + ran.err)
    for kind in ("json", "csv", "txt"):
        assert (tmp_path / f"there.{kind}").read_bytes() == (tmp_path / f"here.{kind}").read_bytes()
    assert json.loads((tmp_path / "there.json").read_text())["models"][0]["frames"] == 4


def test_what_cannot_be_read_is_named_by_its_url_and_the_rest_is_scored(cli, store, once_listed, tmp_path):
    store.pipe_file("data/pred/0001/0001.png", b"no image")
    once_listed(lambda: store.rm_file("data/DHF1K/annotation/0002/maps/0002.png"))
    ran = cli(main, *THERE, "--json", tmp_path / "s.json")
    assert ran.code == 1
    assert "salema-eval: s3://data/pred/0001/0001.png: can't be read as an image" in ran.err
    gone = "s3://data/DHF1K/annotation/0002/maps/0002.png: is gone since its folder was listed"
    assert f"salema-eval: {gone} (The specified key does not exist" in ran.err
    found = json.loads((tmp_path / "s.json").read_text())
    assert list(found["failed"]) == ["0001/0001", "0002/0002"]
    assert found["models"][0]["frames"] == 6


@pytest.mark.parametrize(
    ("place", "code", "sentence"),
    [
        ("s3://absent/pred", 1, "s3://absent/pred: no such folder"),
        ("gs://data/pred", 1, "gs://: Please install gcsfs to access Google Storage, on each machine that runs"),
        ("nonsense://data/pred", 2, "nonsense://data/pred: no file system that fsspec knows"),
    ],
)
def test_a_place_that_is_none_is_one_sentence(cli, here, place, code, sentence):
    ran = cli(main, *here, "--pred", place)
    assert (ran.code, ran.out) == (code, "")
    assert sentence in ran.err
    assert ran.err.count("\n") == 1


def test_keys_that_may_not_read_are_one_sentence(cli, store):
    from moto.core import set_initial_no_auth_action_count

    ran = set_initial_no_auth_action_count(0)(lambda: cli(main, *THERE))()
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("salema-eval: s3://data/DHF1K/annotation: can't be reached (")
    assert ran.err.endswith("; check the URL and this machine's keys\n")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("option", ["--src", "--compare", "--model"])
def test_models_run_on_files_of_this_machine(cli, option):
    ran = cli(main, "--dataset", "other", "--model", "m", "--src", "s", option, "s3://data/x")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "salema-eval: --model: it runs on this machine's files; only --pred, its --compare and --gt may be URLs\n"
    )
