import shutil

import cv2
import numpy as np
import pytest
from videos import outputs

from salema.runtime.cli.run import main


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--json"], "--csv - and --json both take standard output; give the CSV a file"),
        (["again.mp4"], "--csv -: several sources are given, and their lines would be mixed; name a folder"),
    ],
)
def test_a_standard_output_that_is_taken_is_refused(cli, model, small_clip, tmp_path, options, sentence):
    shutil.copy(small_clip, tmp_path / "again.mp4")
    options = [tmp_path / option if option.endswith(".mp4") else option for option in options]
    ran = cli(main, small_clip, *options, "--model", model, "--no-video", "--csv", "-")
    assert (ran.code, ran.out, ran.err) == (2, "", f"salema-run: {sentence}\n")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--map-bits", 12, "--maps", "m"), "--map-bits 12: not one of 8, 16"),
        (("--map-bits", 16), "--map-bits and --map-size go with --maps DIR; add that, or leave them out"),
        (("--map-size", "source", "--npz", "m.npz"), "--map-bits and --map-size go with --maps DIR; add that"),
        (("--normalise", "video"), "--normalise video: not one of frame, running, none"),
        (("--colormap", "sepia"), "--colormap sepia: not one of autumn, bone,"),
        (("--opacity", 1.5), "--opacity 1.5: give a number from 0 to 1"),
        (("-o", "-"), "-o -: only --csv goes to standard output; name a file or a folder"),
        (("--npz", "-"), "--npz -: only --csv goes to standard output; name a file or a folder"),
        (("--maps", "-"), "--maps -: only --csv goes to standard output; name a file or a folder"),
        (("--npz", "maps.zip"), "--npz maps.zip: not a name that ends in .npz"),
        (("--csv", "t.txt"), "--csv t.txt: not a name that ends in .csv"),
        (("--no-video", "-o", "o.mp4", "--maps", "m"), "--no-video and -o contradict each other"),
        (("--start-time", -1), "--start-time -1: give seconds, 0 to 1e+06"),
        (("--csv", "a.csv", "other.mp4"), "--csv a.csv: several sources are given; name a folder"),
        (("-o", "a.mp4", "other.mp4"), "-o a.mp4: several sources are given; name a folder"),
        (("--show",), "--show: there is no display that can be opened (see DISPLAY)"),
    ],
)
def test_usage(cli, model, small_clip, tmp_path, monkeypatch, options, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    (tmp_path / "other.mp4").write_bytes(small_clip.read_bytes())
    ran = cli(main, small_clip, "--model", model, *options)
    assert ran.code == (1 if options == ("--show",) else 2)
    assert ran.err.splitlines()[-1].startswith(f"salema-run: {sentence}")
    assert [path.name for path in outputs(tmp_path)] == ["other.mp4"]


@pytest.mark.parametrize("sources", [("fr",), ("fr", "other")])
def test_maps_do_not_overwrite_the_frames_they_are_of(cli, model, tmp_path, monkeypatch, sources):
    monkeypatch.chdir(tmp_path)
    for name in ("fr", "other"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "0001.png"), np.full((8, 8, 3), 7, np.uint8))
    ran = cli(main, *sources, "--model", model, "--no-video", "--maps", "fr" if len(sources) == 1 else ".")
    assert ran.code == 2
    assert "fr: holds the frames of a source, which maps would overwrite; choose another --maps" in ran.err
    assert (cv2.imread(str(tmp_path / "fr/0001.png")) == 7).all()


def test_a_device_is_not_replaced(cli, model, small_clip, tmp_path):
    (tmp_path / "t.csv").symlink_to("/dev/null")
    ran = cli(main, small_clip, "--model", model, "--no-video", "--csv", tmp_path / "t.csv")
    assert (ran.code, "t.csv: is no ordinary file; choose another name" in ran.err) == (1, True)


def test_pictures_too_wide_for_h264(cli, model, tmp_path):
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((2, 9000, 3), np.uint8))
    ran = cli(main, tmp_path / "wide.png", "--model", model, "-o", tmp_path / "o.mp4", "--view", "side-by-side")
    assert ran.code == 1
    assert "o.mp4: 18000x2 pixels, and H.264 goes to 16384 either way; give --view overlay" in ran.err


def test_the_source_is_not_overwritten_whichever_name_it_goes_by(cli, model, small_clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(small_clip.read_bytes())
    (tmp_path / "link.mp4").symlink_to("clip.mp4")
    ran = cli(main, "clip.mp4", "--model", model, "-o", "link.mp4")
    assert (ran.code, ran.err) == (2, "salema-run: link.mp4: is the source itself; choose another name with -o\n")
    assert (tmp_path / "clip.mp4").read_bytes() == small_clip.read_bytes()
