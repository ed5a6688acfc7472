"""Datasets of an object store: a server that speaks S3 on this machine."""

import json
import re

import pytest
from frame_folders import maps_under, names_under, numbered, write_frames
from object_store import empty_bucket, keys_for, object_server, objects
from videos import write_clip

from salema.export.weights.seeded import moving_disc
from salema.runtime.cli.run import main
from salema.runtime.files import remote_path
from salema.runtime.output.provenance import NAME

OUT = "seeded-16_predictions"
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # moto's server and aiobotocore leave sockets open


@pytest.fixture(scope="module")
def server():
    with object_server() as address:
        yield address


@pytest.fixture
def store(server, monkeypatch):
    """The file system of an empty bucket, `data`."""
    for name, value in keys_for(server).items():
        monkeypatch.setenv(name, value)
    return empty_bucket("data")


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where temporary folders are made."""
    import tempfile

    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def run(cli, model, source, target, *options):
    arguments = ("--src", source, "--dst", target, "--model", model, "--backend", "onnxruntime")
    return cli(main, "--dataset", "other", *arguments, *options)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in names_under(folder)}


@pytest.fixture
def uploaded(tmp_path, store):
    """Two videos on this machine and in the bucket; the folder."""
    for place, name in enumerate("ab"):
        write_frames(tmp_path / "src" / name, numbered(3), seed=place)
        for path in (tmp_path / "src" / name).iterdir():
            store.pipe_file(f"data/src/{name}/{path.name}", path.read_bytes())
    return tmp_path / "src"


def test_maps_and_records_are_those_of_a_local_run(cli, model, store, uploaded, scratch, tmp_path):
    assert run(cli, model, uploaded, tmp_path / "dst").code == 0
    ran = run(cli, model, "s3://data/src", "s3://data/dst")
    assert ran.code == 0, ran.err
    assert ran.out == "2 of 2 videos, 6 maps -> s3://data/dst\n"
    assert objects(store, "data/dst") == contents(tmp_path / "dst")
    assert list(scratch.iterdir()) == []
    again = run(cli, model, "s3://data/src", "s3://data/dst", "--resume", "--json")
    assert json.loads(again.out)["skipped"] == 2


def test_one_of_the_two_may_be_local(cli, model, store, uploaded, scratch, tmp_path):
    assert run(cli, model, uploaded, "s3://data/out").code == 0
    assert run(cli, model, "s3://data/src", f"file://{tmp_path}/back").code == 0
    assert objects(store, "data/out") == contents(tmp_path / "back")
    assert len(maps_under(tmp_path / "back")) == 6


def test_a_video_without_its_record_is_run_again_and_the_record_is_sent_last(
    cli, model, store, uploaded, scratch, caplog
):
    assert run(cli, model, "s3://data/src", "s3://data/dst").code == 0
    store.rm_file(f"data/dst/{OUT}/a/{NAME}")
    store.rm_file(f"data/dst/{OUT}/b/00002.png")
    caplog.clear()
    ran = run(cli, model, "s3://data/src", "s3://data/dst", "--resume")
    assert ran.out.startswith("2 of 2 videos, 6 maps")
    assert f"a has all its maps, but no {NAME} tells what made them" in ran.err
    done = re.findall(rf"(PUT|DELETE) /data/dst/{OUT}/(\S+)", caplog.text)  # in the server's log
    for name, removals in (("a", 0), ("b", 1)):
        of_video = [(verb, path.partition("/")[2]) for verb, path in done if path.startswith(name)]
        assert of_video[:removals] == [("DELETE", NAME)] * removals  # the older record goes first: it describes others
        assert sorted(of_video[removals:-1]) == [("PUT", f"{number:05d}.png") for number in (1, 2, 3)]
        assert of_video[-1] == ("PUT", NAME)


def test_a_video_file_is_read_too(cli, model, store, scratch, tmp_path):
    (tmp_path / "src/video").mkdir(parents=True)
    clip = write_clip(tmp_path / "src/video/001.mp4", moving_disc(5, 64, 96))
    store.pipe_file("data/src/video/001.mp4", clip.read_bytes())
    for source, target in ((tmp_path / "src", tmp_path / "dst"), ("s3://data/src", "s3://data/dst")):
        ran = cli(main, "--dataset", "DHF1K", "--src", source, "--dst", target, "--model", model, "--threads", 1)
        assert ran.code == 0, ran.err
    assert objects(store, "data/dst") == contents(tmp_path / "dst")
    again = ("--dataset", "DHF1K", "--src", "s3://data/src", "--dst", "s3://data/dst", "--model", model, "--threads", 1)
    assert "1 was finished before" in cli(main, *again, "--resume").out


@pytest.mark.parametrize("frame", ["0001.png", "0002.png"])  # before the first map, and after it
def test_what_fails_sends_nothing_and_is_told_by_its_url(cli, model, store, uploaded, scratch, frame):
    store.pipe_file(f"data/src/a/{frame}", b"no image")
    ran = run(cli, model, "s3://data/src", "s3://data/dst")
    assert ran.code == 1
    assert f"salema-run: a: s3://data/src/a/{frame}: can't be read as an image" in ran.err
    assert "1 of 2 videos, 3 maps" in ran.out
    assert {name.partition("/")[0] for name in store.find("data/dst")} == {"data"}
    assert not store.exists(f"data/dst/{OUT}/a")
    assert len(store.find(f"data/dst/{OUT}/b")) == 4
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "code", "sentence"),
    [
        ("s3://absent/src", 1, "s3://absent/src: no such folder"),
        ("s3://data/nothing", 1, "s3://data/nothing: no such folder"),
        ("gs://data/src", 1, "gs://: Please install gcsfs to access Google Storage, on each machine that runs"),
        ("nonsense://data/src", 2, "nonsense://data/src: no file system that fsspec knows"),
    ],
)
def test_a_place_that_is_none_is_one_sentence(cli, model, store, tmp_path, place, code, sentence):
    ran = run(cli, model, place, tmp_path / "dst")
    assert ran.code == code
    assert sentence in ran.err


def test_a_server_that_is_gone_is_one_sentence(cli, model, store, tmp_path, monkeypatch):
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    ran = run(cli, model, "s3://data/src", tmp_path / "dst")
    s3fs.S3FileSystem.clear_instance_cache()
    assert ran.code == 1
    assert "s3://data/src: can't be reached (" in ran.err


def test_without_fsspec_the_sentence_says_what_to_install(cli, model, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    ran = run(cli, model, "s3://data/src", tmp_path / "dst")
    assert ran.code == 1
    assert ran.err == "salema-run: s3://data/src: needs fsspec; install it with: pip install 'salema[urls]'\n"


def test_a_remote_path_is_as_a_path(store, uploaded):
    folder = remote_path.as_path("s3://data/src/a/")
    assert (str(folder), folder.name, folder.parts[-2:], folder.is_dir()) == (
        "s3://data/src/a",
        "a",
        ("src", "a"),
        True,
    )
    first, *_ = sorted(folder.iterdir(), key=str)
    assert (first.name, first.stem, first.suffix, first.is_file()) == ("0001.png", "0001", ".png", True)
    assert first.stat().st_size == (uploaded / "a/0001.png").stat().st_size
    assert first.parent == folder
    assert first.read_part(1, 9) == (uploaded / "a/0001.png").read_bytes()[1:9]
    assert not (folder / "absent").exists()
    assert list((folder / "absent").iterdir()) == []


def test_a_bucket_that_is_none_is_told_before_the_work_and_not_made(cli, model, store, uploaded):
    ran = run(cli, model, "s3://data/src", "s3://absent/dst")
    assert ran.code == 1
    assert "salema-run: s3://absent/dst: can't be written (The specified bucket does not exist" in ran.err
    assert ran.out == ""
    assert not store.exists("absent")


def test_maps_that_an_earlier_longer_run_left_are_told(cli, model, store, uploaded, scratch):
    store.pipe_file(f"data/dst/{OUT}/a/00004.png", b"a map")
    ran = run(cli, model, "s3://data/src", "s3://data/dst")
    assert ran.code == 0, ran.err
    assert f"note: s3://data/dst/{OUT}/a also holds 1 PNG file that this run did not write\n" in ran.err
    assert "/b also holds" not in ran.err


def test_maps_do_not_go_among_the_frames(cli, model, store, uploaded, scratch):
    before = objects(store, "data/src")
    ran = run(cli, model, "s3://data/src", "s3://data/src", "--naming", "groundtruth")
    assert (ran.code, "s3://data/src/a, among the dataset's own files; choose another --dst" in ran.err) == (2, True)
    assert objects(store, "data/src") == before
