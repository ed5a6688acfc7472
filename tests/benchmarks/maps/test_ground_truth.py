import shutil

import cv2
import numpy as np
import pytest
from scipy import io, sparse

from salema.benchmarks.maps import ground_truth
from salema.benchmarks.maps.ground_truth import list_truth, map_files
from salema.benchmarks.maps.map_files import read_fixations, read_map
from salema.benchmarks.maps.predictions import ModelMaps, PredictedMaps
from salema.runtime import load
from salema.runtime.errors import MapError, UnreachableError, VideoError

MAP = np.array([[0, 1, 2], [3, 4, 255]], np.uint8)


def write(path, image=MAP):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return path


def summary(root, dataset="DHF1K", **options):
    return {
        key: (video.name, [(frame.name, bool(frame.density), bool(frame.fixation)) for frame in video.frames])
        for key, video in list_truth(dataset, root, **options).items()
    }


@pytest.mark.parametrize("inner", ["annotation/{v}/{k}", "{v}/{k}", "{k}/{v}"])
def test_layouts_of_dhf1k(tmp_path, inner):
    for video in ("0601", "602", "0010"):
        for kind in ("maps", "fixation"):
            for frame in ("0002", "0001", "10"):
                write(tmp_path / inner.format(v=video, k=kind) / f"{frame}.png")
    frames = [("0001", True, True), ("0002", True, True), ("10", True, True)]
    assert summary(tmp_path) == {"10": ("0010", frames), "601": ("0601", frames), "602": ("602", frames)}
    assert list(summary(tmp_path, start=601, end=601)) == ["601"]
    with pytest.raises(MapError, match="holds no ground truth of DHF1K that was asked for"):
        summary(tmp_path, start=603)


@pytest.mark.parametrize("inner", ["", "testing", "Hollywood-2/testing"])
def test_layouts_of_hollywood(tmp_path, inner):
    video = tmp_path / inner / "actioncliptest00001_2"
    write(video / "maps/000050.png")
    write(video / "maps/000049.png")
    (video / "fixation/maps").mkdir(parents=True)
    io.savemat(video / "fixation/maps/000050.mat", {"I": MAP})
    write(video / "fixation/000049.png")
    io.savemat(video / "fixation/maps/000049.mat", {"I": MAP})
    (found,) = list_truth("Hollywood-2", tmp_path).values()
    assert [frame.name for frame in found.frames] == ["000049", "000050"]
    assert [frame.fixation.name for frame in found.frames] == ["000049.png", "000050.mat"]


def test_padding_may_differ_and_one_of_the_two_may_be_missing(tmp_path):
    write(tmp_path / "v/maps/0001.png")
    write(tmp_path / "v/fixation/1.png")
    write(tmp_path / "v/fixation/2.png")
    write(tmp_path / "w/maps/1.png")
    (tmp_path / "empty/maps").mkdir(parents=True)
    found = {"v": ("v", [("0001", True, True), ("2", False, True)]), "w": ("w", [("1", True, False)])}
    assert summary(tmp_path, "other") == found


def test_what_is_there_twice_is_refused(tmp_path):
    write(tmp_path / "a/0601/maps/1.png")
    write(tmp_path / "a/601/maps/1.png")
    with pytest.raises(MapError, match="holds 0?601 and 0?601, which are the same video"):
        list_truth("DHF1K", tmp_path / "a")
    write(tmp_path / "b/1/maps/1.png")
    write(tmp_path / "b/1/maps/01.png")
    with pytest.raises(MapError, match="is the map of the same frame as 01.png"):
        list_truth("DHF1K", tmp_path / "b")


def test_frames_that_cannot_be_reached_are_not_taken_for_none(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise UnreachableError("s3://data/DHF1K/frames: can't be reached (Forbidden)")

    write(tmp_path / "v/maps/1.png")
    monkeypatch.setattr(ground_truth, "list_videos", unreachable)
    with pytest.raises(UnreachableError, match="Forbidden"):
        list_truth("other", tmp_path)


@pytest.mark.parametrize("most", [1, 255])
@pytest.mark.parametrize("kind", ["png", "bmp", "mat", "sparse", "logical", "colour", "16 bits"])
def test_fixations_of_every_kind(tmp_path, kind, most):
    places = np.array([[0, 1, 0], [0, 0, 1]], np.uint8) * np.uint8(most)
    path = tmp_path / f"1.{kind if kind in ('png', 'bmp') else 'mat'}"
    if kind == "colour":
        path = write(tmp_path / "1.png", np.repeat(places[..., None], 3, axis=2))
    elif kind == "16 bits":
        path = write(tmp_path / "1.png", places.astype(np.uint16) * 257)
    elif path.suffix == ".mat":
        stored = {"sparse": sparse.csc_matrix(places.astype(float)), "logical": places > 0}.get(kind, places)
        io.savemat(path, {"I": stored})
    else:
        write(path, places)
    size_hw, indices = read_fixations(path)
    assert (size_hw, indices.tolist()) == ((2, 3), [1, 5])


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        ({"J": MAP}, "holds J; a map in the variable I expected"),
        ({"I": np.zeros((2, 2, 3))}, "I is double (2, 2, 3); numbers (H, W) expected"),
        ({"I": np.array([[0, np.nan]])}, "holds NaN or infinity at 1 pixel;"),
        ({"I": np.array([[0, -1.0]])}, "holds negative numbers, down to -1"),
        ({"I": np.array([[0, 1e-200]])}, "has 1e-200 as its greatest value; scale the map"),
        ({"I": MAP}, "is no fixation map: it holds 5 values besides 0"),
        ({"I": np.array([[0, 1, 1, 1]])}, "is no fixation map: 75% of its pixels are fixated; is it inverted?"),
        ({"I": np.array(["text"])}, "numbers (H, W) expected"),
        (b"", "can't be read as a MATLAB file"),
        (b"no matlab file at all, but of some length", "can't be read as a MATLAB file"),
        (b"MATLAB 7.3 MAT-file" + b" " * 105 + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n", "is a MATLAB 7.3 file; save it"),
    ],
)
def test_matlab_files_that_are_no_fixations(tmp_path, stored, sentence):
    path = tmp_path / "1.mat"
    if isinstance(stored, bytes):
        path.write_bytes(stored)
    else:
        io.savemat(path, stored)
    with pytest.raises(MapError) as caught:
        read_fixations(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert sentence in str(caught.value)


def test_depth_is_kept_and_a_missing_file_is_one_sentence(tmp_path):
    assert read_map(write(tmp_path / "8.png")).dtype == np.uint8
    deep = read_map(write(tmp_path / "16.png", np.array([[0, 40_000]], np.uint16)))
    assert (deep.dtype, deep.tolist()) == (np.uint16, [[0, 40_000]])
    with pytest.raises(MapError, match=r"absent.png: can't be read \(No such file"):
        read_map(tmp_path / "absent.png")


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int32, np.int64, np.uint32])
def test_other_types_of_numbers_become_those_that_are_worked_with(tmp_path, dtype):
    io.savemat(tmp_path / "1.mat", {"I": np.array([[0, 1, 1]], dtype)})
    found = read_map(tmp_path / "1.mat")
    assert found.dtype == (np.uint8 if dtype is bool else np.float64)
    assert found.tolist() == [[0, 1, 1]]


def matched(tmp_path, names, frames, dataset="other", video="v", **options):
    """Pairs predictions of these names with ground truth of those; gives name by frame, missing, extra."""
    for frame in frames:
        write(tmp_path / f"gt/{video}/maps/{frame}.png")
    for name in names:
        write(tmp_path / f"pred/{video}/{name}.png")
    truth = list_truth(dataset, tmp_path / "gt")
    (found,) = PredictedMaps(dataset, tmp_path / "pred", truth, **options).videos.values()
    named = {truth[video].frames[index].name: path.stem for index, path in found.files.items()}
    return named, list(found.missing), list(found.extra)


def test_frames_are_paired_by_their_names(tmp_path):
    found = matched(tmp_path, ["0049", "050", "52"], ["49", "50", "51"])
    assert found == ({"49": "0049", "50": "050"}, ["51"], ["52.png"])


def test_frames_may_be_named_by_their_count_as_in_the_published_code(tmp_path):
    found = matched(tmp_path, ["00001", "00002", "00003"], ["49", "50", "51"])
    assert found == ({"49": "00001", "50": "00002", "51": "00003"}, [], [])
    with pytest.raises(MapError, match="holds 4 maps counted from 1, and the ground truth 3 frames"):
        matched(tmp_path, ["00004"], ["49"])


def test_frames_may_be_named_by_the_videos_name_less_a_character_and_their_count(tmp_path):
    names = [f"Golf-00{count:05d}" for count in (1, 2)]
    found = matched(tmp_path, names, ["7", "8"], "UCF-sports", "Golf-001")
    assert found == ({"7": names[0], "8": names[1]}, [], [])


def test_frames_that_begin_with_0_are_told_from_those_counted(tmp_path):
    frames = [f"{number:05d}" for number in range(4)]
    assert matched(tmp_path / "a", [f"{n:05d}" for n in (1, 2, 3, 4)], frames)[1:] == ([], [])
    assert matched(tmp_path / "b", frames, frames)[0]["00000"] == "00000"
    with pytest.raises(MapError, match="say which with --naming groundtruth or --naming published"):
        matched(tmp_path / "c", ["00001", "00002", "00003"], frames)
    with pytest.raises(MapError, match="holds 3 maps counted from 1, and the ground truth 4 frames"):
        matched(tmp_path / "c", [], frames, naming="published")
    assert matched(tmp_path / "c", [], frames, naming="groundtruth")[0]["00001"] == "00001"


def test_several_predictions_beside_each_other(tmp_path):
    for dataset, inner in (("other", "{w}_predictions/v"), ("UCF-sports", "v/{w}_predictions")):
        write(tmp_path / dataset / "gt/v/maps/1.png")
        for weights in ("one", "two"):
            write(tmp_path / dataset / "pred" / inner.format(w=weights) / "1.png")
        truth = list_truth(dataset, tmp_path / dataset / "gt")
        with pytest.raises(MapError, match="holds one_predictions, two_predictions; choose one with --weights"):
            PredictedMaps(dataset, tmp_path / dataset / "pred", truth)
        found = PredictedMaps(dataset, tmp_path / dataset / "pred", truth, weights="two")
        assert "two_predictions" in str(found.videos["v"].files[0])
        assert found.label == "two"


def test_two_folders_of_one_video_are_refused(tmp_path):
    for folder in ("gt/0001/maps", "pred/1", "pred/0001", "frames/1", "frames/0001"):
        write(tmp_path / folder / "1.png")
    truth = list_truth("DHF1K", tmp_path / "gt")
    with pytest.raises(MapError, match="holds 0*1 and 0*1, which are the same video; remove one"):
        PredictedMaps("DHF1K", tmp_path / "pred", truth)
    with pytest.raises(VideoError, match="/frames: holds 0*1 and 0*1, which are the same video; rename or"):
        ModelMaps("DHF1K", tmp_path, truth, None, "m")


def test_frames_none_of_which_fits_the_ground_truth_are_refused_before_they_are_run(tmp_path):
    write(tmp_path / "gt/v/maps/7.png")
    write(tmp_path / "data/v/8.png")
    with pytest.raises(MapError, match="no name of a frame fits a frame of the ground truth"):
        ModelMaps("other", tmp_path / "data", list_truth("other", tmp_path / "gt"), None, "m")


def test_videos_without_these_weights_are_left_out_and_the_weights_name_the_row(tmp_path):
    for video in ("v", "w"):
        write(tmp_path / f"gt/{video}/maps/1.png")
        write(tmp_path / f"testing/{video}/one_predictions/1.png")
    write(tmp_path / "testing/v/two_predictions/1.png")
    truth = list_truth("UCF-sports", tmp_path / "gt")
    found = PredictedMaps("UCF-sports", tmp_path / "testing", truth, weights="two")
    assert (list(found.videos), found.label) == (["v"], "two")
    with pytest.raises(MapError, match="v: holds no x_predictions; it holds one_predictions, two_predictions"):
        PredictedMaps("UCF-sports", tmp_path / "testing", truth, weights="x")
    shutil.rmtree(tmp_path / "testing/v/two_predictions")
    assert PredictedMaps("UCF-sports", tmp_path / "testing", truth).label == "one"


@pytest.mark.parametrize("inner", ["", "testing", "UCF-sports/testing"])
def test_predictions_and_frames_are_found_in_testing_as_the_ground_truth_is(model, tmp_path, inner):
    for root, kind in (("gt", "maps"), ("pred", "w_predictions"), ("src", "images")):
        write(tmp_path / root / inner / "v" / kind / "1.png")
    truth = list_truth("UCF-sports", tmp_path / "gt")
    with load(model) as stream:
        running = ModelMaps("UCF-sports", tmp_path / "src", truth, stream, "m")
    for found in (PredictedMaps("UCF-sports", tmp_path / "pred", truth), running):
        assert [len(video.files) for video in found.videos.values()] == [1]


def test_hidden_files_and_folders_are_no_maps(tmp_path):
    write(tmp_path / "v/maps/1.png")
    write(tmp_path / "v/maps/._1.png")
    (tmp_path / "v/maps/2.png").mkdir()
    assert summary(tmp_path, "other") == {"v": ("v", [("1", True, False)])}


def test_weights_that_are_not_there_where_the_maps_lie_right_here(tmp_path):
    write(tmp_path / "gt/v/maps/1.png")
    write(tmp_path / "pred/v/1.png")
    with pytest.raises(MapError, match="holds no w_predictions; if the maps lie right here, leave --weights out"):
        PredictedMaps("other", tmp_path / "pred", list_truth("other", tmp_path / "gt"), weights="w")


def test_a_picture_in_colours_is_no_map(tmp_path):
    picture = np.repeat(MAP[..., None], 3, axis=2)
    path = write(tmp_path / "1.png", picture)
    assert read_map(path).tolist() == MAP.tolist()
    picture[0, 0, 2] += 1
    with pytest.raises(MapError, match="is a picture in colours"):
        read_map(write(path, picture))


def test_a_link_to_itself_is_listed_for_the_reader_to_refuse(tmp_path):
    (tmp_path / "0001.png").symlink_to(tmp_path / "0001.png")
    (tmp_path / "2.png").mkdir()
    assert map_files(tmp_path) == {"1": tmp_path / "0001.png"}
