import pytest
from synthetic import write_dataset

from salema.runtime.errors import SalemaError, UsageError
from salema.training.data.choose import choose_data
from salema.training.options import DataOptions


def choose(**options):
    return choose_data(DataOptions(**options), pytest.fail)


def test_photographs_are_split_by_their_sorted_names(photographs):
    trained, held_out = choose(dataset="photographs", src=photographs, val="4:1")
    assert held_out.names == ("p01", "p05")
    assert trained.names == ("p00", "p02", "p03", "p04", "p06", "p07")


def test_val_none_holds_nothing_out(photographs):
    trained, held_out = choose(dataset="photographs", src=photographs, val="none")
    assert (len(trained.names), held_out) == (8, None)


def test_another_folder_is_held_out(photographs):
    trained, held_out = choose(dataset="photographs", src=photographs, val=str(photographs))
    assert len(trained.names) == len(held_out.names) == 8


def test_dhf1k_is_split_by_its_numbers(tmp_path):
    write_dataset(tmp_path, "DHF1K", videos=2)
    write_dataset(tmp_path, "DHF1K", videos=2, first_video=601)
    trained, held_out = choose(src=tmp_path)
    assert (trained.names, held_out.names) == (("1", "2"), ("601", "602"))
    trained, held_out = choose(src=tmp_path, end=1, val="2-2")
    assert (trained.names, held_out.names) == (("1",), ("2",))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "give the dataset's folder with --src DIR"),
        ({"dataset": "Salicon"}, "--dataset Salicon: not one of DHF1K, Hollywood-2, UCF-sports, other, photographs"),
        ({"dataset": "photographs", "start": 1}, "--start and --end number the videos of DHF1K"),
        ({"dataset": "photographs", "val": "every"}, "--val every: not a folder, and not N:K"),
        ({"dataset": "photographs", "val": "3:3"}, "--val 3:3: not a folder"),
        ({"dataset": "photographs", "val": "20:15"}, "leaves nothing to train on, or nothing to validate on, of 8"),
        ({"start": 5, "end": 4}, "--start 5 is greater than --end 4"),
    ],
)
def test_wrong_options_are_named(photographs, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        choose(**({"src": photographs} if options else {}), **options)


@pytest.mark.parametrize(
    ("val", "sentence"),
    [("2-3", "--val 2-3: is trained on"), ("7", "--val 7: not two numbers"), ("9-8", "not two numbers")],
)
def test_wrong_numbers_to_validate_on_are_named(tmp_path, val, sentence):
    write_dataset(tmp_path, "DHF1K", videos=2)
    with pytest.raises(UsageError, match=sentence):
        choose(src=tmp_path, val=val)


@pytest.mark.parametrize("inside", ["training", "UCF-sports/training"])
def test_videos_to_train_on_are_not_those_of_the_test_set(tmp_path, inside):
    trained = tmp_path / inside
    write_dataset(trained, "UCF-sports", first_video=5)
    write_dataset(trained.with_name("testing"), "UCF-sports")
    for gt in (None, tmp_path):
        own, held_out = choose(dataset="UCF-sports", src=tmp_path, gt=gt, val=str(tmp_path))
        assert own.names[0] == "Diving-Side-005"
        assert held_out.names[0] == "Diving-Side-001"  # as named elsewhere
    own, _ = choose(dataset="UCF-sports", src=trained.with_name("testing"), val="none")
    assert own.names[0] == "Diving-Side-001"  # named itself


@pytest.mark.parametrize("option", ["src", "gt"])
def test_a_test_set_is_not_trained_on_silently(tmp_path, option):
    write_dataset(tmp_path / "own", "UCF-sports")
    write_dataset(tmp_path / "set/UCF-sports/testing", "UCF-sports")
    places = {"src": tmp_path / "own", option: tmp_path / "set"}
    sentence = rf"--{option} .*set: holds UCF-sports/testing, the test set, and no folder UCF-sports/training; name the"
    with pytest.raises(UsageError, match=sentence):
        choose(dataset="UCF-sports", **places)


def test_numbers_that_hold_nothing_to_validate_on_are_named(tmp_path):
    write_dataset(tmp_path, "DHF1K", videos=2)
    with pytest.raises(
        SalemaError, match="--val 601-700, the default, can't be validated on: .*; choose others, or none"
    ):
        choose(src=tmp_path, end=2)
    with pytest.raises(SalemaError, match="--val 8-9 can't be validated on"):
        choose(src=tmp_path, end=2, val="8-9")
