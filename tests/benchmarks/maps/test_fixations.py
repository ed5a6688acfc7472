import numpy as np
import pytest

from salema.benchmarks.maps.fixations import OtherFixations, Places
from salema.benchmarks.metrics.protocols import PROTOCOLS, find_protocol


def places(*indices, size=(4, 6)):
    return Places(size, np.array(indices, np.int32))


def test_places_in_another_size_are_where_they_were():
    every = places(*range(24))
    assert every.at((4, 6)).tolist() == list(range(24))
    assert sorted(set(every.at((2, 3)).tolist())) == list(range(6))
    assert every.at((2, 3)).reshape(4, 6)[::2, ::2].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert set(places(0, 23).at((40, 60)).tolist()) == {5 * 60 + 5, 35 * 60 + 55}
    assert places(0, 7).to_map().nonzero()[0].tolist() == [0, 1]


def test_exact_counts_all_fixations_of_other_videos():
    found = OtherFixations(
        {"a": [places(0), places(5)], "b": [places(0, 1), None], "c": [places(1)]}, PROTOCOLS["exact"], 0
    )
    assert found.at("a", 0, (4, 6)).ravel()[:6].tolist() == [1, 2, 0, 0, 0, 0]
    assert found.at("b", 1, (4, 6)).ravel()[:6].tolist() == [1, 1, 0, 0, 0, 1]
    assert found.at("c", 0, (4, 6)).sum() == 4
    assert OtherFixations({"a": [places(0)]}, PROTOCOLS["exact"], 0).at("a", 0, (4, 6)) is None


def test_salema_draws_a_frame_each_of_40_other_videos_once_for_a_video():
    size = (1, 200)
    videos = {f"v{v}": [places(2 * v, size=size), places(2 * v + 1, size=size)] for v in range(100)}
    found = OtherFixations(videos, PROTOCOLS["salema"], 0)
    first = found.at("v7", 0, size).ravel()
    assert np.unique(first).tolist() == [0, 6]  # 255 in one of 40 maps
    assert (first > 0).sum() == 40
    assert ((first.reshape(100, 2) > 0).sum(axis=1) <= 1).all()
    assert not first[14:16].any()
    assert (found.at("v7", 1, size) == first).all()
    assert (found.at("v8", 0, size) != first).any()
    assert (OtherFixations(videos, PROTOCOLS["salema"], 0).at("v7", 0, size) == first).all()
    assert (OtherFixations(videos, PROTOCOLS["salema"], 1).at("v7", 0, size) != first).any()
    seeds = (OtherFixations(videos, PROTOCOLS["salema"], seed).at("v7", 0, size) for seed in range(200))
    drawn = sum((places > 0).astype(int) for places in seeds).ravel()
    assert drawn[14:16].sum() == 0
    assert drawn.sum() / 198 == pytest.approx(200 * 40 / 198)
    assert drawn.max() < 75  # each is drawn 40 times in 200, give or take 6


def test_dhf1k_draws_10_frames_of_all_but_itself_for_each_frame():
    size = (1, 50)
    videos = {name: [places(25 * v + index, size=size) for index in range(25)] for v, name in enumerate("ab")}
    found = OtherFixations(videos, PROTOCOLS["dhf1k"], 0)
    drawn = [found.at("a", index, size).ravel() for index in range(25)]
    assert {int(row.sum()) for row in drawn} == {10}
    assert all(row[index] == 0 for index, row in enumerate(drawn))
    assert len({row.tobytes() for row in drawn}) == 25
    assert sum(row[:25].sum() for row in drawn) > 60  # of its own video too


def test_few_frames_are_all_taken():
    videos = {"a": [places(0)], "b": [places(1)], "c": [None]}
    for protocol in ("salema", "dhf1k"):
        found = OtherFixations(videos, PROTOCOLS[protocol], 0).at("a", 0, (4, 6))
        assert np.flatnonzero(found).tolist() == [1]


def test_several_frames_of_a_video_are_drawn_where_there_are_few_videos():
    videos = {name: [places(30 * v + i, size=(1, 90)) for i in range(30)] for v, name in enumerate("abc")}
    found = OtherFixations(videos, PROTOCOLS["salema"], 0)
    assert (found.at("a", 0, (1, 90)) > 0).reshape(3, 30).sum(axis=1).tolist() == [0, 20, 20]
    assert found.fewest("abc") is None
    assert OtherFixations({"a": [places(0)], "b": [places(1)]}, PROTOCOLS["salema"], 0).fewest("ab") == 1


def test_videos_of_the_range_that_is_scored_come_first():
    """The published code draws from the videos that it evaluates; others fill up where these are too few."""
    size = (1, 100)
    videos = {str(number): [places(number, size=size)] for number in range(100)}
    for count, outside in ((60, 0), (41, 0), (31, 10), (1, 40)):
        evaluated = {str(number) for number in range(count)}
        drawn = OtherFixations(videos, PROTOCOLS["salema"], 0, first=evaluated).at("0", 0, size).ravel() > 0
        assert (drawn[:count].sum(), drawn[count:].sum(), drawn[0]) == (40 - outside, outside, False)


def test_hollywood_draws_10_frames_and_resizes_them_by_area():
    protocol = find_protocol("salema", "Hollywood-2")
    size = (40, 60)
    videos = {f"v{v}": [places(120 * v, 120 * v + 1, size=size)] for v in range(20)}
    found = OtherFixations(videos, protocol, 0)
    assert np.flatnonzero(found.at("v3", 0, size)).size == 20
    assert found.at("v3", 0, size).max() == 25
    # Half as large, two neighbours become one place of half their levels; twice as large, a patch.
    small, large = found.at("v3", 0, (20, 30)), found.at("v3", 0, (80, 120))
    assert np.unique(small).tolist() == [0, 12]
    assert ((small > 0).sum(), (large > 0).sum()) == (10, 80)


def test_a_place_of_a_much_larger_frame_fades_away():
    protocol = find_protocol("salema", "UCF-sports")
    videos = {"a": [places(0)], **{f"v{v}": [places(6 * v, size=(60, 60))] for v in range(10)}}
    assert OtherFixations(videos, protocol, 0).at("a", 0, (10, 10)) is None  # 255 of one pixel in 36, in one map of 10
    assert OtherFixations(videos, protocol, 0).at("a", 0, (15, 15)).max() == 1
