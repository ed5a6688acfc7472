import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from videos import DISC, outputs, write_clip

from salema.runtime.errors import UsageError, VideoError
from salema.runtime.run.videos import usual_jobs
from salema.runtime.sources.source import find_sources


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def kinds(*texts):
    return [(source.kind, source.name) for source in find_sources([str(text) for text in texts])]


def test_each_kind_is_known_by_its_looks(tmp_path):
    touch(tmp_path, "clip.mp4", "no suffix")
    assert kinds(tmp_path / "clip.mp4", tmp_path / "no suffix") == [("video", "clip"), ("video", "no suffix")]
    assert kinds("0", "12", "/dev/video3") == [("camera", "camera0"), ("camera", "camera12"), ("camera", "camera3")]
    assert kinds("-", "videotestsrc ! x264enc") == [("stdin", "stdin"), ("pipeline", "gstreamer")]
    assert kinds("rtsp://10.0.0.7:554/front door", "http://h/a.mp4?x=1", "udp://0.0.0.0:9000") == [
        ("url", "front_door"),
        ("url", "a"),
        ("url", "0.0.0.0"),
    ]
    assert kinds(f"file://{tmp_path}/clip.mp4") == [("video", "clip")]


def test_a_folder_of_images_is_one_video_in_the_order_of_their_numbers(tmp_path):
    touch(tmp_path / "v", "10.png", "9.png", "0001.PNG", "notes.txt", ".hidden.png")
    (source,) = find_sources([str(tmp_path / "v")])
    assert (source.kind, source.name) == ("images", "v")
    assert [path.name for path in source.images] == ["0001.PNG", "9.png", "10.png"]


def test_a_folder_of_videos_is_each_of_them(tmp_path):
    touch(tmp_path / "v", "b10.mp4", "b9.MOV", "readme.md", "ünï cødé.mkv")
    assert [name for _, name in kinds(tmp_path / "v")] == ["b9", "b10", "ünï cødé"]


def test_patterns(tmp_path):
    touch(tmp_path / "a b", "1.mp4", "2.mp4", "10.mp4", "x.png", "y.png")
    touch(tmp_path / "a b/deep", "3.mp4")
    assert kinds(tmp_path / "a b/*.mp4") == [("video", "1"), ("video", "2"), ("video", "10")]
    assert kinds(tmp_path / "**/*.mp4") == [("video", "1"), ("video", "2"), ("video", "10"), ("video", "3")]
    assert kinds(tmp_path / "a b/*.png") == [("images", "a b")]
    touch(tmp_path, "[1].mp4")
    assert kinds(tmp_path / "[1].mp4") == [("video", "[1]")]  # a file of that very name


def test_a_list_names_sources_relative_to_itself(tmp_path):
    touch(tmp_path / "sub", "a.mp4", "b c.mp4")
    (tmp_path / "list.txt").write_text("# cameras\n0\n\nsub/a.mp4\nsub/b c.mp4\nrtsp://cam/x\nsub/*.mp4\n", "utf-8-sig")
    names = [source.name for source in find_sources([str(tmp_path / "list.txt")])]
    assert names == ["camera0", "a", "b c", "x", "a_2", "b c_2"]


def test_names_are_each_sources_own(tmp_path):
    touch(tmp_path / "x", "a.mp4", "a.mkv")
    touch(tmp_path / "y", "a.mp4")
    assert [name for _, name in kinds(tmp_path / "x", tmp_path / "y")] == ["a", "a_2", "a_3"]
    touch(tmp_path / "z", "A.mp4", "a_2.mp4")
    assert [name for _, name in kinds(tmp_path / "x", tmp_path / "z")] == ["a", "a_2", "A_3", "a_2_2"]


@pytest.mark.parametrize("secret", ["secret", "s3c/ret", "s#c?ret", "s@cret"])
def test_passwords_are_not_shown(secret):
    (source,) = find_sources([f"rtsp://admin:{secret}@cam.local:554/h264?user=admin&pwd={secret}"])
    assert (source.shown, source.name) == ("rtsp://cam.local:554/h264", "h264")
    assert source.given.count(secret) == 2


@pytest.mark.parametrize("url", ["http://[::1", "rtsp://user:s3cr[t@host/x", "http://exa℀mple/x"])
def test_urls_that_cannot_be_read(cli, model, tmp_path, url):
    from salema.runtime.cli.run import main

    ran = cli(main, url, "--model", model, "-o", tmp_path / "o.mp4")
    assert ran.code == 2
    assert "URL can't be read; in a user's name or password write [ as %5B" in ran.err
    assert "s3cr" not in ran.err


def test_a_name_of_an_existing_file_means_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "wow ! cool.mp4", "0")
    touch(tmp_path / "601", "1.png")
    touch(tmp_path / "br [1]", "x.mp4", "y.mp4")
    (tmp_path / "br [1]/l.txt").write_text("*.mp4\n")
    touch(tmp_path, "a b.mp4")
    assert kinds("wow ! cool.mp4", "601", "br [1]/l.txt", f"file://{tmp_path}/a%20b.mp4") == [
        *(("video", "wow ! cool"), ("images", "601"), ("video", "x"), ("video", "y"), ("video", "a b"))
    ]
    assert kinds("0", "./0") == [("camera", "camera0"), ("video", "0")]
    with pytest.raises(UsageError, match="a source has no name"):
        find_sources([""])


@pytest.mark.parametrize(
    ("make", "text", "sentence"),
    [
        (lambda _: None, "absent.mp4", "no such video file"),
        (lambda _: None, "*.mp4", "no file matches this pattern"),
        (lambda folder: touch(folder / "e"), "e", "holds neither images nor videos; for folders of folders"),
        (lambda folder: touch(folder / "m", "a.png", "b.mp4"), "m", r"holds images and videos; name .* 'm/\*.mp4'"),
        (lambda folder: (folder / "l.txt").write_text("# none\n"), "l.txt", "this list names no source"),
        (lambda folder: (folder / "l.txt").write_bytes(b"\xff\xfe\x00"), "l.txt", "can't be read as a list of sources"),
        (lambda folder: (folder / "l.txt").write_text("gone.mp4\n"), "l.txt", "^l.txt: gone.mp4: no such video file"),
        (lambda folder: (folder / "l.txt").write_text("l.txt\n"), "l.txt", "a list within a list"),
        (lambda folder: (folder / "l.txt").write_text(f"file://{folder}/l.txt\n"), "l.txt", "a list within a list"),
        (lambda folder: os.mkfifo(folder / "f"), "f", "is no ordinary file; pipe it in, with - as the source"),
    ],
)
def test_a_missing_source(tmp_path, monkeypatch, make, text, sentence):
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    with pytest.raises(VideoError, match=sentence):
        find_sources([text])


def test_cameras_and_streams_run_all_at_once(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    files = [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]
    for texts, expected in (
        (files, 1),
        (["0"], 1),
        (["0", "rtsp://a/b", "v4l2src ! x"], 3),
        (["0", *files], 2),
    ):
        assert usual_jobs(find_sources(texts)) == expected


@pytest.mark.parametrize(
    ("url", "live", "expected"),
    [
        ("https://a/{}.mp4", False, 1),
        ("https://user:b@a/{}.MKV?key=x.m3u8", False, 1),
        ("https://a/{}.mp4", True, 2),
        ("https://a/{}.m3u8", False, 2),
        ("https://a/{}.mpd?key=x.mp4", False, 2),
        ("http://camera{}/mjpg", False, 2),
        ("rtsp://a/{}.mp4", False, 2),
    ],
)
def test_files_on_the_web_run_one_after_the_other(url, live, expected):
    assert usual_jobs(find_sources([url.format(1), url.format(2)]), live=live) == expected


def test_an_unreadable_folder(tmp_path):
    """As root everything can be read, so another user looks."""
    folder = touch(tmp_path / "v", "a.mp4")
    folder.chmod(0)
    user = 65534 if os.getuid() == 0 else os.getuid()
    open_to_all = [path for path in tmp_path.parents if path.stat().st_uid == os.getuid() and path != Path("/")]
    before = {path: path.stat().st_mode for path in [tmp_path, *open_to_all]}
    try:
        for path, mode in before.items():
            path.chmod(mode | 0o055)
        code = (
            "import os, sys\n"
            "import salema.runtime.sources.source as s\n"
            "os.setuid(int(sys.argv[2]))\n"
            "try: s.find_sources([sys.argv[1]])\n"
            "except s.VideoError as error: print(error)\n"
        )
        ran = subprocess.run([sys.executable, "-c", code, str(folder), str(user)], capture_output=True, text=True)
    finally:
        folder.chmod(0o755)
        for path, mode in before.items():
            path.chmod(mode)
    assert ran.stdout == f"{folder}: this folder can't be read (Permission denied)\n", ran.stderr


def test_the_videos_of_a_folder_run_one_after_the_other(cli, model, tmp_path):
    from salema.runtime.cli.run import main

    for name in ("b", "a"):
        (tmp_path / "in").mkdir(exist_ok=True)
        write_clip(tmp_path / f"in/{name}.mp4", DISC)
    cv2.imwrite(str(tmp_path / "one.png"), np.full((5, 7, 3), 9, np.uint8))
    arguments = (tmp_path / "in", tmp_path / "one.png", "--model", model, "-o", tmp_path / "out")
    ran = cli(main, *arguments, "--maps", tmp_path / "maps", "--csv", tmp_path / "csv")
    assert ran.code == 0, ran.err
    assert [line.split(": ")[0] for line in ran.out.splitlines()] == [
        str(tmp_path / "in/a.mp4"),
        str(tmp_path / "in/b.mp4"),
        str(tmp_path / "one.png"),
    ]
    out = sorted(
        str(path.relative_to(tmp_path)) for name in ("csv", "maps", "out") for path in outputs(tmp_path / name)
    )
    assert out == [
        *("csv/a.csv", "csv/b.csv", "csv/one.csv"),
        *("maps/a", "maps/b", "maps/one"),
        *("out/a_saliency.mp4", "out/b_saliency.mp4", "out/one_saliency.mp4"),
    ]
    for number in range(1, 9):  # the state starts anew with each
        one, other = ((tmp_path / f"maps/{name}/{number:04d}.png").read_bytes() for name in "ab")
        assert one == other


def test_where_all_sources_fail_no_others_are_told_of(cli, model, tmp_path):
    from salema.runtime.cli.run import main

    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"no video")
    ran = cli(main, tmp_path, "--model", model, "-o", tmp_path / "out")
    assert ran.code == 1
    assert ran.err.endswith("salema-run: 2 of 2 sources failed\n")


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_source_that_fails_does_not_end_the_others(cli, model, tmp_path, jobs):
    from salema.runtime.cli.run import main

    for name in ("a", "c"):
        write_clip(tmp_path / f"{name}.mp4", DISC)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    ran = cli(main, tmp_path / "*.mp4", "--model", model, "-o", tmp_path / "out", "--jobs", jobs)
    assert ran.code == 1
    assert f"salema-run: {tmp_path}/b.mp4: can't be read as a video" in ran.err
    assert ran.err.endswith("salema-run: 1 of 3 sources failed; the others are done\n")
    assert [path.name for path in outputs(tmp_path / "out")] == ["a_saliency.mp4", "c_saliency.mp4"]


def test_a_missing_entry_is_a_source_with_a_problem(tmp_path):
    touch(tmp_path / "here", "a.mp4")
    (tmp_path / "list.txt").write_text("gone/a.mp4\nhere/a.mp4\nlist.txt\nrtsp://user:s3cr[t@host/x\nnone/*.mp4\n")
    found = find_sources([str(tmp_path / "list.txt")], strict=False)
    assert [source.name for source in found if not source.problem] == ["a_2"]  # the same once the other is there
    problems = [source.problem.removeprefix(f"{tmp_path}/list.txt: ") for source in found if source.problem]
    assert problems[0] == f"{tmp_path}/gone/a.mp4: no such video file"
    assert problems[1].endswith("list.txt: a list within a list; name its sources in one")
    assert "this rtsp URL can't be read" in problems[2]
    assert "s3cr" not in problems[2]
    assert problems[3].endswith("none/*.mp4: no file matches this pattern")
    assert [source.files for source in found if source.problem] == [()] * 4
    with pytest.raises(VideoError, match=r"list.txt: .*gone/a.mp4: no such video file$"):
        find_sources([str(tmp_path / "list.txt")])


def test_where_nothing_is_there_it_is_an_error(tmp_path):
    gone = [str(tmp_path / f"{number}.mp4") for number in range(7)]
    with pytest.raises(VideoError, match=r"^[^;]*/0.mp4: no such video file$"):
        find_sources(gone[:1], strict=False)
    with pytest.raises(VideoError, match=r"4.mp4: no such video file; \.\.\.$"):
        find_sources(gone, strict=False)


@pytest.mark.parametrize("way", ["list", "arguments"])
def test_a_missing_source_is_not_the_end_of_the_others(cli, model, tmp_path, way):
    from salema.runtime.cli.run import main

    for name in ("a", "c"):
        write_clip(tmp_path / f"{name}.mp4", DISC)
    (tmp_path / "list.txt").write_text("a.mp4\nb.mp4\nc.mp4\n")
    given = [tmp_path / "list.txt"] if way == "list" else [tmp_path / f"{name}.mp4" for name in "abc"]
    arguments = (*given, "--model", model, "-o", tmp_path / "out", "--csv", tmp_path / "csv")
    ran = cli(main, *arguments)
    assert ran.code == 1
    prefix = f"{tmp_path}/list.txt: " if way == "list" else ""
    assert f"salema-run: {prefix}{tmp_path}/b.mp4: no such video file" in ran.err.splitlines()
    assert ran.err.endswith("salema-run: 1 of 3 sources failed; the others are done\n")
    assert [path.name for path in outputs(tmp_path / "out")] == ["a_saliency.mp4", "c_saliency.mp4"]
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    ran = cli(main, *arguments, "--strict")
    assert ran.code == 1
    assert ran.err == f"salema-run: {prefix}{tmp_path}/b.mp4: no such video file\n"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_with_strict_the_first_that_fails_is_the_last(cli, model, tmp_path, jobs):
    from salema.runtime.cli.run import main

    for name in "bcdef":
        write_clip(tmp_path / f"{name}.mp4", DISC)
    (tmp_path / "a.mp4").write_bytes(b"no video")
    ran = cli(main, tmp_path / "*.mp4", "--model", model, "-o", tmp_path / "out", "--jobs", jobs, "--strict")
    assert ran.code == 1
    assert f"salema-run: {tmp_path}/a.mp4: can't be read as a video" in ran.err
    assert ran.err.endswith("salema-run: 1 of 6 sources failed; stopped there, as --strict asks\n")
    done = [path.name for path in outputs(tmp_path / "out")] if (tmp_path / "out").is_dir() else []
    assert len(done) < (1 if jobs == 1 else 5)
