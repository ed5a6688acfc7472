import os
import struct
import zipfile
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest

from salema.benchmarks.scores.cli import main
from salema.runtime.output.provenance import Provenance, write_provenance

GREY = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8)


def submission(root, videos=(701, 702), frames=3, pattern="{:04d}/{:04d}.png"):
    for video in videos:
        for number in range(1, frames + 1):
            path = root / pattern.format(video, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), GREY)
    return root


def pack(cli, tmp_path, *arguments, end=702):
    return cli(main, "pack", "--pred", tmp_path / "maps", "-o", tmp_path / "out.zip", "--end", end, *arguments)


@pytest.mark.parametrize("pattern", ["{:04d}/{:04d}.png", "SalEMA30_predictions/{}/{}.png"])
def test_a_good_submission_is_packed_under_the_names_of_the_frames(cli, tmp_path, pattern):
    submission(tmp_path / "maps", pattern=pattern)
    for folder in {path.parent for path in (tmp_path / "maps").rglob("*.png")}:
        (folder / "salema.json").write_text("{}")  # what salema-run writes beside them stays here
    ran = pack(cli, tmp_path, "--method", "SalEMA30")
    assert (ran.code, ran.out) == (0, f"2 videos, 6 maps -> {tmp_path / 'out.zip'}\n")
    assert "note: maps are 8x6; DHF1K's frames are 640x360" in ran.err
    assert "note: frame counts not checked; give --src" in ran.err
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.testzip() is None
        wanted = [f"SalEMA30/{video:04d}/{frame:04d}.png" for video in (701, 702) for frame in (1, 2, 3)]
        assert archive.namelist() == wanted
        image = cv2.imdecode(np.frombuffer(archive.read(wanted[-1]), np.uint8), cv2.IMREAD_UNCHANGED)
        assert (image == GREY).all()


def test_all_that_is_wrong_is_said_and_nothing_packed(cli, tmp_path):
    root = submission(tmp_path / "maps", videos=(700, 701, 702, 703, 705))
    (root / "0701/0002.png").unlink()
    (root / "0702/notes.txt").write_text("x")
    cv2.imwrite(str(root / "0702/0003.png"), GREY[:4])
    cv2.imwrite(str(root / "0703/0001.png"), np.dstack([GREY] * 3))
    cv2.imwrite(str(root / "0703/0002.png"), GREY.astype(np.uint16))
    data = (root / "0703/0003.png").read_bytes()
    (root / "0703/0003.png").write_bytes(data[:-20])
    for path in (root / "0705").iterdir():
        path.unlink()
    ran = pack(cli, tmp_path, end=705)
    assert ran.code == 1
    lines = [line.removeprefix("salema-eval: ").replace(f"{root}/", "") for line in ran.err.splitlines()]
    assert "1 video has no folder: 0704" in lines
    assert "1 folder is of another video than 701 to 705: 0700" in lines
    assert "0701: 1 frame has no map: 0002" in lines
    assert "0702: holds notes.txt; only numbered .png files belong here" in lines
    assert "0703/0001.png: is PNG of kind RGB; 8-bit grey PNG expected" in lines
    assert any(line.startswith("0703/0002.png: is PNG of kind I") for line in lines)
    assert any(line.startswith("0703/0003.png: can't be read as an image") for line in lines)
    assert "0705: holds no map" in lines
    assert any(line.startswith("maps are of 2 sizes, and should be of one: 8x6 (") for line in lines)
    assert lines[-1] == "9 problems; nothing was packed"
    assert not (tmp_path / "out.zip").exists()


def test_frames_are_counted_against_the_datasets(cli, tmp_path):
    submission(tmp_path / "maps", frames=3)
    submission(tmp_path / "data/frames", videos=(701,), frames=3, pattern="{}/{:04d}.png")
    submission(tmp_path / "data/frames", videos=(702,), frames=2, pattern="{}/{:05d}.png")
    ran = pack(cli, tmp_path, "--src", tmp_path / "data")
    assert ran.code == 1
    assert f"{tmp_path / 'maps/0702'}: 1 map is of no frame: 3" in ran.err
    (tmp_path / "maps/0702/0003.png").unlink()
    assert pack(cli, tmp_path, "--src", tmp_path / "data").code == 0
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist()[-1] == "out/0702/00002.png"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--start", 703), 2, "--start is greater than --end"),
        (("--method", "a/b"), 2, "--method a/b: give a name without slashes"),
        (("--pred", "absent"), 1, "absent: no such folder"),
        (("--src", "absent"), 1, "absent: no such folder"),
        (("-o", "absent/x.zip"), 1, "absent/x.zip: can't be written"),
    ],
)
def test_usage(cli, tmp_path, monkeypatch, arguments, code, sentence):
    monkeypatch.chdir(tmp_path)
    submission(tmp_path / "maps")
    ran = pack(cli, tmp_path, *arguments)
    assert ran.code == code
    assert sentence in ran.err
    assert list(tmp_path.iterdir()) == [tmp_path / "maps"]


def test_two_folders_of_one_video_are_a_problem(cli, tmp_path):
    submission(tmp_path / "maps")
    submission(tmp_path / "maps", videos=(701,), pattern="0{:04d}/{:04d}.png")
    ran = pack(cli, tmp_path)
    assert ran.code == 1
    assert "which are the same video; remove one" in ran.err


def test_a_video_that_the_dataset_does_not_have_is_a_problem(cli, tmp_path):
    submission(tmp_path / "maps")
    submission(tmp_path / "data/frames", videos=(701,))
    ran = pack(cli, tmp_path, "--src", tmp_path / "data")
    assert ran.code == 1
    assert "0702: --src holds no frames of it" in ran.err
    assert "frame counts not checked" not in ran.err


def test_a_file_without_a_date_is_packed(cli, tmp_path):
    submission(tmp_path / "maps")
    os.utime(tmp_path / "maps/0701/0001.png", (0, 0))
    ran = pack(cli, tmp_path)
    assert ran.code == 0, ran.err


def png(rows_there, width=8, height=6):
    """A grey PNG with right check sums."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes((width + 1) * rows_there))), (b"IEND", b""))
    sealed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(sealed)


@pytest.mark.parametrize("data", [png(4), png(1, 100_000, 100_000)], ids=["too few rows", "far too large"])
def test_an_image_that_cannot_be_decoded_is_a_problem(cli, tmp_path, data):
    submission(tmp_path / "maps")
    (tmp_path / "maps/0701/0001.png").write_bytes(data)
    ran = pack(cli, tmp_path)
    assert ran.code == 1
    assert "0701/0001.png: can't be read as an image" in ran.err


def test_a_run_that_broke_off_is_a_problem(cli, tmp_path):
    root = submission(tmp_path / "maps")
    made = Provenance("1", {"weights": "nano"}, "", {}, {}, 3, 5, complete=False, why_incomplete="interrupted")
    write_provenance(root / "0702", made)
    ran = pack(cli, tmp_path)
    assert ran.code == 1
    assert f"{root / '0702'}: by its salema.json the run did not reach its end (interrupted); run it again" in ran.err
    write_provenance(root / "0702", replace(made, complete=True, why_incomplete=None))
    assert pack(cli, tmp_path).code == 0


def test_hidden_files_stay_out(cli, tmp_path):
    root = submission(tmp_path / "maps")
    (root / "0701/._0001.png").write_bytes(b"x")
    (root / "0701/.DS_Store").write_bytes(b"x")
    ran = pack(cli, tmp_path)
    assert (ran.code, ran.out) == (0, f"2 videos, 6 maps -> {tmp_path / 'out.zip'}\n")


def test_a_method_is_refused_before_maps_are_read(cli, tmp_path):
    root = submission(tmp_path / "maps")
    (root / "0701/0002.png").unlink()
    ran = pack(cli, tmp_path, "--method", "a/b")
    assert ran.code == 2
    assert "--method a/b" in ran.err
