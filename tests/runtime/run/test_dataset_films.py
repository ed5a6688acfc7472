import pytest
from frame_folders import names_under, numbered, write_frames
from videos import damage, write_clip, write_film

from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.cli.run import main
from salema.runtime.errors import VideoError
from salema.runtime.output.provenance import read_provenance
from salema.runtime.run.dataset import Here, run_dataset
from salema.runtime.run.dataset_layouts import list_videos


@pytest.mark.parametrize("naming", ["published", "groundtruth"])
def test_dhf1ks_own_videos_give_the_maps_of_their_frames(cli, model, tmp_path, naming):
    for number, seed in ((1, 0), (2, 3), (3, 5)):
        write_film(tmp_path / f"films/video/{number:03d}.AVI", moving_disc(4 + seed, 48, 64)[seed:])
        write_frames(tmp_path / f"images/frames/{number}", numbered(4), seed=seed)
    (tmp_path / "films/video/._001.AVI").write_bytes(b"x")
    for kind in ("films", "films/video", "images"):
        places = ("--src", tmp_path / kind, "--dst", tmp_path / "dst" / kind.replace("/", " "))
        ran = cli(main, "--dataset", "DHF1K", *places, "--naming", naming, "--model", model, "--start", 2)
        assert ran.code == 0, ran.err
        assert ran.out.startswith("2 of 2 videos, 8 maps")
    names = names_under(tmp_path / "dst/images")
    assert "0002/0004.png" in " ".join(names)
    assert names == names_under(tmp_path / "dst/films") == names_under(tmp_path / "dst/films video")
    for name in (name for name in names if name.endswith(".png")):
        assert (tmp_path / "dst/films" / name).read_bytes() == (tmp_path / "dst/images" / name).read_bytes()
    write_frames(tmp_path / "films/frames/1", numbered(1))
    (video,) = list_videos("DHF1K", tmp_path / "films", tmp_path, "w")
    assert video.film is None  # where there are frames these count


def test_a_film_is_run_to_its_end_whatever_its_header_says(model, tmp_path):
    film = write_film(tmp_path / "video/001.AVI", moving_disc(6, 48, 64))
    data = film.read_bytes()
    for place in (b"avih", b"strh"):
        at = data.index(place) + (24 if place == b"avih" else 40)
        assert data[at : at + 4] == b"\6\0\0\0"
        data = data[:at] + b"\4" + data[at + 1 :]
    film.write_bytes(data)
    (video,) = list_videos("DHF1K", tmp_path, tmp_path / "dst", "w")
    assert [path.name for path in video.maps] == numbered(4)
    summary = run_dataset([video], Here(lambda: load(model)))
    assert (summary.videos, summary.frames, summary.failed) == (1, 6, {})
    assert sorted(path.name for path in video.maps[0].parent.glob("*.png")) == numbered(6)


@pytest.mark.parametrize("lost", [5, 23])
def test_a_film_with_a_damaged_picture_fails_since_later_maps_would_have_other_numbers(cli, model, tmp_path, lost):
    (tmp_path / "src/video").mkdir(parents=True)
    write_clip(tmp_path / "src/video/001.mp4", moving_disc(3, 64, 96))
    clip = damage(write_clip(tmp_path / "src/video/002.mp4", moving_disc(24, 64, 96), options={"bf": "0"}), [lost])
    arguments = ("--dataset", "DHF1K", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)
    ran = cli(main, *arguments)
    assert ran.code == 1
    assert f"salema-run: 002: {clip}: is damaged at 0." in ran.err
    assert "and maps after that would have other frames' numbers; copy or download it anew" in ran.err
    assert ran.err.splitlines()[-1] == "salema-run: 1 of 2 videos failed; the others are done"
    made = [read_provenance(tmp_path / f"dst/seeded-16_predictions/{name}") for name in ("0001", "0002")]
    assert [one.complete for one in made] == [True, False]


def test_a_film_that_cannot_be_read_is_not_the_end_of_the_others(cli, model, tmp_path):
    write_film(tmp_path / "src/video/001.AVI", moving_disc(2, 48, 64))
    (tmp_path / "src/video/002.AVI").write_bytes(b"no video")
    ran = cli(main, "--dataset", "DHF1K", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)
    assert ran.code == 1
    assert ran.out.startswith("1 of 2 videos, 2 maps")
    assert "video/002.AVI: can't be read as a video" in ran.err
    with pytest.raises(VideoError, match="images in frames/<number>/, or video/<number>.AVI"):
        list_videos("DHF1K", tmp_path / "src", tmp_path, "w", start=3)
