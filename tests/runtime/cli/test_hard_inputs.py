"""Inputs that users have and programs often fail on, each through the whole command."""

import subprocess

import cv2
import numpy as np
import pytest
from limits import script
from videos import DISC, outputs, probe, write_clip, write_coded, write_silence

from salema.export.weights.seeded import moving_disc
from salema.runtime.cli.run import main


@pytest.fixture
def run(cli, model, tmp_path, monkeypatch):
    """Runs the command in its own folder; returns what it printed, and what a player sees."""
    monkeypatch.chdir(tmp_path)

    def go(*arguments, code=0, out="out.mp4"):
        ran = cli(main, *arguments, "--model", model, "-o", out)
        assert ran.code == code, ran.err
        return ran, probe(tmp_path / out) if (tmp_path / out).exists() else None

    return go


def noise(count, height, width, channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def test_a_video_of_one_frame(run, tmp_path):
    write_clip(tmp_path / "a.mp4", DISC[:1])
    ran, after = run("a.mp4")
    assert ran.out.startswith("1 frame in ")
    assert len(after["images"]) == 1


def test_no_frame(run, tmp_path):
    write_clip(tmp_path / "a.mkv", DISC[:0])
    ran, after = run("a.mkv", code=1)
    assert "a.mkv: " in ran.err
    assert after is None


@pytest.mark.parametrize(("size", "even"), [((1, 1), (2, 2)), ((359, 641), (360, 642)), ((3, 500), (4, 500))])
def test_odd_sizes(run, tmp_path, size, even):
    write_coded(tmp_path / "a.mkv", noise(3, *size))
    for view, columns in (("overlay", even[1]), ("map", even[1]), ("side-by-side", -(-2 * size[1] // 2) * 2)):
        _, after = run("a.mkv", "--view", view)
        assert after["size_hw"] == (even[0], columns)
        assert len(after["images"]) == 3


@pytest.mark.slow
def test_8k(run, tmp_path):
    picture = cv2.resize(moving_disc(1, 64, 96)[0], (7680, 4320))
    write_clip(tmp_path / "a.mp4", np.stack([picture, picture[:, ::-1]]), options={"crf": "30"})
    ran, after = run("a.mp4", "--maps", "maps")
    assert after["size_hw"] == (4320, 7680)
    assert len(after["images"]) == 2
    assert ran.err.count("\n") == 2
    first = cv2.imread(str(tmp_path / "maps/0001.png"), cv2.IMREAD_UNCHANGED)
    assert first.shape == (64, 96)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("grey.mkv", "ffv1", "gray"),
        ("ten bits.mkv", "ffv1", "yuv420p10le"),
        ("full range.mkv", "mjpeg", "yuvj420p"),
        ("grey of 16 bits.mkv", "ffv1", "gray16le"),
    ],
)
def test_other_pixels(run, tmp_path, name, codec, pix_fmt):
    write_coded(tmp_path / name, DISC, codec, pix_fmt)
    _, after = run(name, "--opacity", 0)
    images = np.stack(after["images"]).astype(int)
    expected = DISC if "grey" not in name else np.stack(3 * [_grey(DISC)], axis=-1)
    assert np.abs(images - expected).mean() < (6 if codec == "mjpeg" else 4)


def _grey(images):
    return np.stack([cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in images])


def test_transparency_is_left_out(run, tmp_path):
    images = np.concatenate([DISC, np.full((8, 64, 96, 1), 128, np.uint8)], axis=-1)
    write_coded(tmp_path / "a.mov", images, codec="png", pix_fmt="rgba", given="bgra")
    _, after = run("a.mov", "--opacity", 0)
    assert np.abs(np.stack(after["images"]).astype(int) - DISC).mean() < 4


def test_a_file_with_sound_alone(run, tmp_path):
    write_silence(tmp_path / "a.m4a")
    ran, after = run("a.m4a", code=1)
    assert ran.err.splitlines()[-1] == (
        "salema-run: a.m4a: holds no video stream that can be decoded (cover art does not count)"
    )
    assert after is None


@pytest.mark.parametrize("suffix", ["jpg", "avi", "txt.mp3", "png", ""])
def test_a_wrong_extension_is_no_obstacle(run, tmp_path, suffix):
    name = f"clip.{suffix}".rstrip(".")
    write_clip(tmp_path / "a.mp4", DISC).rename(tmp_path / name)
    _, after = run(name)
    assert len(after["images"]) == 8


def test_a_text_that_is_called_a_video(run, tmp_path):
    (tmp_path / "a.mp4").write_text("Dear all,\nthe video follows.\n")
    ran, after = run("a.mp4", code=1)
    assert ran.err.splitlines()[-1].startswith("salema-run: a.mp4: can't be read as a video")
    assert after is None


@pytest.mark.parametrize(
    "name", ["two words.mp4", "ünï cødé 视频.mp4", "a'b\"c.mp4", "#1 (50%d) [x].mp4", ".hidden.mp4"]
)
def test_names(run, tmp_path, name):
    write_clip(tmp_path / "a.mp4", DISC).rename(tmp_path / name)
    run(name, "--maps", f"maps of {name}", out=f"{name}.mp4")
    assert len(outputs(tmp_path / f"maps of {name}")) == 8
    assert {path.name for path in outputs(tmp_path)} == {name, f"{name}.mp4", f"maps of {name}"}


def test_the_usual_name_of_the_output(cli, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in/a.mp4", DISC).rename(tmp_path / "in/ünï cødé.v2.mp4")
    assert cli(main, "in/ünï cødé.v2.mp4", "--model", model).code == 0
    assert [path.name for path in outputs(tmp_path)] == ["in", "ünï cødé.v2_saliency.mp4"]


def test_mixed_sizes_in_one_folder(run, tmp_path):
    (tmp_path / "v").mkdir()
    for index, (height, width) in enumerate([(64, 96), (30, 41), (200, 100), (1, 1), (64, 96)]):
        cv2.imwrite(str(tmp_path / f"v/{index}.png"), noise(1, height, width)[0])
    ran, after = run("v", "--maps", "maps", "--csv", "t.csv")
    assert ran.out.startswith("5 frames in ")
    assert after["size_hw"] == (64, 96)
    rows = (tmp_path / "t.csv").read_text().splitlines()
    assert [row[-1] for row in rows[1:]] == list("11111")
    same = [(tmp_path / f"maps/{number:04d}.png").read_bytes() for number in (1, 5)]
    assert same[0] == same[1]  # the state is new each time, and the picture is the same


def test_two_runs_into_one_folder(model, tmp_path):
    for name, frames in (("a", moving_disc(60, 64, 96)), ("b", noise(60, 64, 96))):
        write_clip(tmp_path / f"{name}.mp4", frames)
    processes = [
        subprocess.Popen(
            [script("salema-run"), f"{name}.mp4", "--model", str(model), "--maps", "maps", "-o", "same.mp4"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.startswith("60 frames in ")
    assert len(probe(tmp_path / "same.mp4")["images"]) == 60
    names = [path.name for path in outputs(tmp_path / "maps")]
    assert names == [f"{number:04d}.png" for number in range(1, 61)]
    assert all(cv2.imread(str(tmp_path / "maps" / name), cv2.IMREAD_UNCHANGED).shape == (64, 96) for name in names)
    assert {path.name for path in outputs(tmp_path)} == {"a.mp4", "b.mp4", "maps", "same.mp4"}
