"""Paths at URLs: on a file system in memory whose URLs name a host and a user, as those of sftp do."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.utils import infer_storage_options

from salema.runtime.errors import MapError, OutputError, UnreachableError, UsageError
from salema.runtime.files.bounded_files import read_file
from salema.runtime.files.many_requests import at_a_time
from salema.runtime.files.remote_path import RemotePath, _Store, as_path, location
from salema.runtime.output import provenance
from salema.runtime.output.provenance import source_facts, video_facts
from salema.runtime.run.dataset_layouts import list_videos


class Hosted(MemoryFileSystem):
    protocol = "hosted"

    def __init__(self, host, username=None, password=None, **options):
        super().__init__(**options)
        if host == "down":
            raise OSError("Name or service not known")
        self.login = (host, username, password)

    @classmethod
    def _strip_protocol(cls, path):
        return infer_storage_options(path)["path"].rstrip("/")

    @staticmethod
    def _get_kwargs_from_urls(url):
        return {name: value for name, value in infer_storage_options(url).items() if name not in {"path", "protocol"}}


@pytest.fixture(autouse=True)
def _known():
    fsspec.register_implementation("hosted", Hosted, clobber=True)
    yield
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


WHOLE = "hosted://me:secret@there/data/DHF1K"


def test_messages_show_no_login_and_what_is_opened_again_keeps_it():
    path = as_path(f"{WHOLE}/") / "video"
    assert (str(path), location(path)) == ("hosted://there/data/DHF1K/video", f"{WHOLE}/video")
    again = as_path(location(path))
    assert (again, again.files.login) == (path, ("there", "me", "secret"))
    with pytest.raises(UnreachableError, match=r"hosted://there/data/DHF1K/video: can't be reached"):
        path.stat()


def test_only_the_url_goes_to_other_machines(monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "hosted", {"password": "key-of-this-machine"})
    path = as_path("hosted://me@there/data")
    assert path.files.login[2] == "key-of-this-machine"
    sent = pickle.dumps([path / "a", path / "b"])
    assert b"key-of-this-machine" not in sent
    monkeypatch.setitem(fsspec.config.conf, "hosted", {"password": "key-of-that-machine"})
    first, second = pickle.loads(sent)
    assert (str(first), first.files.login) == ("hosted://me@there/data/a", ("there", "me", "key-of-that-machine"))
    assert second.files is first.files is pickle.loads(sent)[0].files  # opened once, whatever comes


def test_a_video_at_a_url_with_a_host_has_the_facts_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_SAMPLES", 4)
    monkeypatch.setattr(provenance, "_SAMPLE_BYTES", 1000)
    read, cat = [], Hosted.cat_file
    monkeypatch.setattr(Hosted, "cat_file", lambda *given, **part: read.append(part) or cat(*given, **part))
    for size in (0, 999, 3500, 10_000):
        film = tmp_path / "001.AVI"
        film.write_bytes(bytes(number % 251 for number in range(size)))
        as_path(WHOLE).files.pipe_file("/data/DHF1K/video/001.AVI", film.read_bytes())
        (video,) = list_videos("DHF1K", as_path(WHOLE), tmp_path, "w")
        assert source_facts(video.source) == video_facts(film)
    assert read[-4:] == [{"start": start, "end": start + 1000} for start in (0, 3000, 6000, 9000)]


def test_a_server_that_is_not_there_and_a_url_without_one_are_sentences():
    with pytest.raises(UnreachableError, match=r"^hosted://down/x: can't be reached \(Name or service not known\)"):
        as_path("hosted://me:secret@down/x")
    with pytest.raises(UnreachableError, match=r"^hosted:///x: can't be reached \(.*'host'\); check the URL"):
        as_path("hosted:///x")
    with pytest.raises(UsageError, match="nonsense://there/x: no file system that fsspec knows"):
        as_path("nonsense://me:secret@there/x")


def test_a_file_is_read_whole_and_within_bounds(monkeypatch):
    folder = as_path(WHOLE)
    folder.files.pipe({"/data/DHF1K/1.png": b"12345", "/data/DHF1K/2.png": b""})
    first, second = sorted(folder.iterdir(), key=str)
    assert (read_file(first, 5, MapError), read_file(second, 5, MapError)) == (b"12345", b"")
    folder.files.pipe_file("/data/DHF1K/1.png", b"1234567")
    assert read_file(first, 5, MapError) == b"12345"  # no more than was listed
    monkeypatch.setattr(Hosted, "cat_file", None)
    with pytest.raises(MapError, match="hosted://there/data/DHF1K/1.png: has 5 bytes, and 4 bytes are the most"):
        read_file(first, 4, MapError)


def test_above_a_bucket_is_nothing_else():
    bucket = RemotePath(_Store("s3://bucket", "bucket"), "bucket")
    assert (bucket / "a").parent == bucket.parent == bucket


def test_each_thread_has_its_own_connection_where_fsspec_says_so():
    path = as_path(WHOLE)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(lambda: path.files).result() is not path.files
    assert path.files is path.files
    assert at_a_time(path) == 1


def test_a_place_that_can_be_written_is_left_as_it_was():
    folder = as_path(WHOLE)
    folder.check_writable()
    assert folder.files.find("/") == []


def test_a_place_that_cannot_be_written_is_a_sentence(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(Hosted, "pipe_file", refuse)
    with pytest.raises(OutputError, match=r"^hosted://there/data/DHF1K: can't be written \(Access Denied\); check the"):
        as_path(WHOLE).check_writable()
