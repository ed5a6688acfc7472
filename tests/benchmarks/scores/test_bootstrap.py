import numpy as np
import pytest
from eval_maps import model
from scipy.stats import bootstrap

from salema.benchmarks.metrics.protocols import METRICS
from salema.benchmarks.scores.bootstrap import basis, compare_scores, frame_differences, interval, video_differences
from salema.benchmarks.scores.published import ROWS, against_published, check_published, published_videos
from salema.benchmarks.scores.results import mean_known
from salema.runtime.errors import MapError, UsageError


def test_means_are_over_frames_or_over_videos_and_leave_out_what_is_not_defined():
    found = model({"a": [1, 2, np.nan], "b": [7], "c": [np.nan]})
    assert found.mean("frames").tolist() == [10 / 3] * len(METRICS)
    assert found.mean("videos").tolist() == [(1.5 + 7) / 2] * len(METRICS)
    assert found.unscored() == dict.fromkeys(METRICS, 2)
    assert np.isnan(mean_known(np.full((2, 3), np.nan))).all()


def test_differences_leave_out_what_is_not_defined_for_both():
    first, second = model({"a": [1, 2], "b": [5]}), model({"a": [2, np.nan], "b": [4]})
    assert {key: rows[:, 0].tolist() for key, rows in frame_differences(first, second).items()} == {
        "a": [1, pytest.approx(np.nan, nan_ok=True)],
        "b": [-1],
    }
    assert {name: row[0] for name, row in video_differences(first, second).items()} == {"a": 1, "b": -1}
    assert compare_scores(first, second, "frames")["nss"].mean == 0


@pytest.mark.parametrize("over", ["videos", "frames"])
def test_the_interval_is_scipys(over):
    """Of the mean over videos, and with as many frames in each video of the mean over frames too."""
    draw = np.random.default_rng(0)
    base = {f"v{v}": draw.normal(size=5) for v in range(30)}
    shift = {key: 0.1 + draw.normal(scale=0.2) for key in base}
    first, second = model(base), model({key: rows + shift[key] for key, rows in base.items()})
    found = compare_scores(first, second, over)["cc"]
    wanted = bootstrap((list(shift.values()),), np.mean, method="percentile", n_resamples=20_000, rng=1)
    assert found.mean == pytest.approx(np.mean(list(shift.values())))
    assert (found.low, found.high) == pytest.approx(tuple(wanted.confidence_interval), abs=0.004)
    assert found.videos == 30
    assert found == compare_scores(first, second, over)["cc"]


@pytest.mark.parametrize("videos", [2, 3])
def test_the_interval_of_few_videos_is_too_narrow(videos):
    """All on one side of the true difference, as one in two or four comparisons is: so docs/scores.md says."""
    differences = np.arange(float(videos))
    assert interval(differences, np.ones(videos, int), np.random.default_rng(0)) == (0, videos - 1)
    assert basis(videos) == f"10000 resamples of {videos} videos, which are few: the interval is too narrow"
    assert basis(20) == "10000 resamples of 20 videos"


def test_videos_without_a_score_are_not_drawn():
    draw = np.random.default_rng(0)
    rows = {f"v{v}": [x] for v, x in enumerate(draw.normal(size=8))}
    zeros = {key: [0] for key in rows}
    nothing = {f"w{v}": [np.nan] for v in range(30)}
    alone = compare_scores(model(zeros), model(rows), "frames")
    assert compare_scores(model(zeros | nothing), model(rows | nothing), "frames") == alone


def test_long_videos_weigh_more_in_means_over_frames():
    first = model({"a": [0] * 9, "b": [0]})
    second = model({"a": [1] * 9, "b": [11]})
    frames, videos = (compare_scores(first, second, over)["sim"] for over in ("frames", "videos"))
    assert (frames.mean, videos.mean) == (2, 6)
    assert (frames.low, frames.high) == (videos.low, videos.high) == (1, 11)


def test_a_difference_is_covered_as_often_as_promised():
    draw = np.random.default_rng(1)
    hits = 0
    for _ in range(40):
        shifts = draw.normal(0.3, 1, 40)
        first = model({str(v): [0] for v in range(40)})
        found = compare_scores(first, model({str(v): [shift] for v, shift in enumerate(shifts)}), "videos")["nss"]
        hits += found.low <= 0.3 <= found.high
    assert 34 <= hits <= 40


def test_the_published_scores_average_to_the_table_s_row():
    """The file's means are 0.885, 0.688, 2.476, 0.446, 0.358: of a run between the two published rows of SalEMA30."""
    scores = published_videos()
    assert (len(scores), next(iter(scores)), list(scores)[-1]) == (100, "601", "700")
    means = np.mean(list(scores.values()), axis=0)
    assert means == pytest.approx(ROWS["SalEMA30, dropout"], abs=0.03)
    assert means == pytest.approx([0.88507, 0.68794, 2.47554, 0.44615, 0.35843], abs=1e-5)


def test_agreement_with_the_published_scores():
    wanted = published_videos()
    rows = {key: [[*row, 0, 0]] for key, row in wanted.items()}
    same = against_published(model(rows))
    assert {(found.mean_difference, found.largest_difference, found.videos) for found in same.values()} == {(0, 0, 100)}
    assert [found.correlation for found in same.values()] == pytest.approx([1] * 5)
    rows = {"650": [np.array(rows["650"][0]) + 0.1], "651": [np.array(rows["651"][0]) - 0.3], "12": [1]}
    other = against_published(model(rows))
    assert other["auc_judd"].mean_difference == pytest.approx(-0.1)
    assert other["auc_judd"].largest_difference == pytest.approx(0.3)
    assert {found.videos for found in other.values()} == {2}
    one = against_published(model({"700": [[*wanted["700"][:4], np.nan, 0, 0]]}))
    assert list(one) == ["auc_judd", "s_auc", "nss", "cc"]
    assert one["nss"].correlation is None


def test_videos_without_published_scores_are_refused():
    check_published("DHF1K", "salema", ["1", "601"])
    with pytest.raises(UsageError, match="not UCF-sports's"):
        check_published("UCF-sports", "salema", ["601"])
    with pytest.raises(UsageError, match="are of --protocol salema, not dhf1k"):
        check_published("DHF1K", "dhf1k", ["601"])
    with pytest.raises(MapError, match="none of DHF1K's 601 to 700 has a map of every frame"):
        check_published("DHF1K", "salema", ["1", "600", "701"])
