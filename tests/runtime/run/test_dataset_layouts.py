import json
from pathlib import Path

import pytest
from frame_folders import maps_under, names_under, numbered, write_frames

from salema.runtime.cli.run import main
from salema.runtime.errors import VideoError
from salema.runtime.run.dataset_layouts import list_videos

LAYOUTS = {
    # dataset, source folders with the frames' names, the maps that must come out with the published naming
    "DHF1K": (
        {"frames/2": numbered(2), "frames/10": numbered(1), "frames/601": numbered(1, "{:03d}.png")},
        [f"seeded-16_predictions/{name}.png" for name in ("0002/0001", "0002/0002", "0010/0001", "0601/0001")],
    ),
    "Hollywood-2": (
        {
            "actioncliptest00001_1/images": numbered(2, "{:06d}.png", first=49),
            "actioncliptest00001_2/images": ["9.png"],
        },
        [
            "Hollywood-2/testing/actioncliptest00001_1/seeded-16_predictions/actioncliptest00001_00001.png",
            "Hollywood-2/testing/actioncliptest00001_1/seeded-16_predictions/actioncliptest00001_00002.png",
            "Hollywood-2/testing/actioncliptest00001_2/seeded-16_predictions/actioncliptest00001_00001.png",
        ],
    ),
    "UCF-sports": (
        {"Diving-Side-001/images": ["1.jpg", "2.jpg"]},
        [f"UCF-sports/testing/Diving-Side-001/seeded-16_predictions/Diving-Side-000000{n}.png" for n in (1, 2)],
    ),
    "other": (
        {"a b": ["2.png", "10.png"], "ü{0}": ["x.bmp"]},
        [f"seeded-16_predictions/{name}.png" for name in ("a b/00001", "a b/00002", "ü{0}/00001")],
    ),
}


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_every_layout_comes_out_under_the_published_names(cli, model, tmp_path, dataset):
    folders, expected = LAYOUTS[dataset]
    for folder, names in folders.items():
        write_frames(tmp_path / "src" / folder, names)
    arguments = ("--dataset", dataset, "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)
    ran = cli(main, *arguments, "--json")
    assert ran.code == 0, ran.err
    assert maps_under(tmp_path / "dst") == sorted(expected)
    folders_of_maps = {str(Path(name).parent) for name in expected}
    assert set(names_under(tmp_path / "dst")) - set(expected) == {f"{folder}/salema.json" for folder in folders_of_maps}
    summary = json.loads(ran.out)
    assert (summary["videos"], summary["frames"], summary["failed"]) == (len(folders), len(expected), {})


def test_a_path_that_ends_in_testing_is_not_nested_twice(tmp_path):
    write_frames(tmp_path / "src/Golf-001/images", numbered(1))
    (video,) = list_videos("UCF-sports", tmp_path / "src", tmp_path / "UCF-sports/testing", "SalEMA30.pt")
    assert video.maps == (tmp_path / "UCF-sports/testing/Golf-001/SalEMA30_predictions/Golf-0000001.png",)


def test_names_of_the_ground_truth(tmp_path):
    write_frames(tmp_path / "src/007", ["0049.png", "0050.png"])
    (video,) = list_videos("DHF1K", tmp_path / "src", tmp_path / "dst", "w", naming="groundtruth")
    assert video.maps == tuple(tmp_path / f"dst/0007/{number:04d}.png" for number in (49, 50))


def test_numbers_choose_videos_of_dhf1k_end_included(tmp_path):
    for name in ("1", "002", "0003", "10", "notes"):
        write_frames(tmp_path / "src/frames" / name, numbered(1))

    def chosen(**numbers):
        return [video.name for video in list_videos("DHF1K", tmp_path / "src", tmp_path / "dst", "w", **numbers)]

    assert chosen() == ["1", "002", "0003", "10"]
    assert chosen(start=2, end=3) == ["002", "0003"]
    assert chosen(start=4) == ["10"]
    with pytest.raises(VideoError, match="holds none of the DHF1K videos asked for"):
        chosen(start=11)


def test_frames_are_in_the_order_of_their_numbers_and_only_images_count(tmp_path):
    write_frames(tmp_path / "src/v", ["10.png", "9.png", "0011.png"])
    (tmp_path / "src/v/notes.txt").write_text("x")
    (tmp_path / "src/empty").mkdir()
    (tmp_path / "src/.hidden").mkdir()
    (video,) = list_videos("other", tmp_path / "src", tmp_path / "dst", "w")
    assert [path.name for path in video.frames] == ["9.png", "10.png", "0011.png"]


def test_hidden_files_and_folders_are_no_frames(tmp_path):
    write_frames(tmp_path / "src/v", ["1.png", "2.png", "._1.png", ".2.png"])
    (tmp_path / "src/v/3.png").mkdir()
    (tmp_path / "src/._v").write_bytes(b"x")
    (video,) = list_videos("other", tmp_path / "src", tmp_path / "dst", "w")
    assert [path.name for path in video.frames] == ["1.png", "2.png"]
    (tmp_path / "src/v/4.png").symlink_to("gone")  # left out it would give the next frame its name
    (video,) = list_videos("other", tmp_path / "src", tmp_path / "dst", "w")
    assert [path.name for path in video.frames] == ["1.png", "2.png", "4.png"]


@pytest.mark.parametrize("inner", ["", "testing", "UCF-sports/testing"])
@pytest.mark.parametrize("dataset", ["UCF-sports", "Hollywood-2"])
def test_videos_are_found_in_testing(tmp_path, inner, dataset):
    inner = inner.replace("UCF-sports", dataset)
    write_frames(tmp_path / "src" / inner / "v/images", ["1.png"])
    (tmp_path / "src/training").mkdir()
    (video,) = list_videos(dataset, tmp_path / "src", tmp_path / "dst", "w")
    assert video.frames == (tmp_path / "src" / inner / "v/images/1.png",)


@pytest.mark.parametrize("naming", ["published", "groundtruth"])
def test_two_videos_of_one_number_are_refused(tmp_path, naming):
    for name in ("1", "0001", "2"):
        write_frames(tmp_path / "src/frames" / name, numbered(1))
    with pytest.raises(VideoError, match=r"/src/frames: holds 0*1 and 0*1, which are the same video; rename"):
        list_videos("DHF1K", tmp_path / "src", tmp_path / "dst", "w", naming=naming)


def test_two_video_files_of_one_number_are_refused(tmp_path):
    (tmp_path / "src/video").mkdir(parents=True)
    for name in ("001.AVI", "001.mp4"):
        (tmp_path / "src/video" / name).touch()
    with pytest.raises(VideoError, match=r"/src/video: holds 001\.AVI and 001\.mp4, which are the same video; rename"):
        list_videos("DHF1K", tmp_path / "src", tmp_path / "dst", "w")


@pytest.mark.parametrize("link", [False, True])
def test_maps_do_not_go_among_the_frames(cli, model, tmp_path, link):
    write_frames(tmp_path / "src/a", numbered(1))
    target = tmp_path / "src"
    if link:
        target = tmp_path / "link"
        target.symlink_to("src")
    before = (tmp_path / "src/a/0001.png").read_bytes()
    options = ("--dataset", "other", "--src", tmp_path / "src", "--dst", target, "--naming", "groundtruth")
    ran = cli(main, *options, "--model", model)
    assert ran.code == 2
    sentence = f"salema-run: --dst: the maps of a would go into {target / 'a'}, among the dataset's own files; choose"
    assert sentence in ran.err
    assert (tmp_path / "src/a/0001.png").read_bytes() == before
    assert names_under(tmp_path / "src") == ["a/0001.png"]
