import pytest
from eval_maps import model

from salema.benchmarks.metrics.protocols import METRICS, PROTOCOLS
from salema.benchmarks.scores.report import Evaluation, as_json, text_lines

FIRST, SECOND = model({"a": [0] * 9, "b": [0]}, "first"), model({"a": [1] * 9, "b": [11]}, "second")


@pytest.mark.parametrize(("protocol", "own"), [("salema", "videos"), ("dhf1k", "frames"), ("exact", "videos")])
def test_a_protocols_own_mean_comes_first_and_is_what_is_compared(protocol, own):
    found = Evaluation("other", PROTOCOLS[protocol], 3, [FIRST, SECOND])
    lines = [" ".join(line.split()) for line in text_lines(found)]
    mean, other = (6, 2) if own == "videos" else (2, 6)
    assert lines[0] == f"other, protocol {protocol}, seed 3"
    assert lines[1] == " ".join(METRICS.values())
    assert lines[4] == f"second (mean over {own}) {' '.join([f'{mean}.000'] * 7)}"
    assert lines[5].endswith(" ".join([f"{other}.000"] * 7))
    assert f"difference {' '.join([f'+{mean}.00000'] * 7)}" in lines
    record = as_json(found)
    assert record["mean"] == f"over {own}"
    assert record["difference"]["over_videos"]["nss"]["mean"] == 6
    assert record["difference"]["over_frames"]["nss"]["mean"] == 2
    assert record["difference"]["videos"] == {"a": dict.fromkeys(METRICS, 1), "b": dict.fromkeys(METRICS, 11)}


def test_a_score_that_is_not_defined_is_a_dash_or_null():
    found = Evaluation("other", PROTOCOLS["exact"], 0, [model({"a": [float("nan")]})])
    assert list(text_lines(found))[2].split()[-7:] == ["-"] * 7
    assert as_json(found)["models"][0]["mean_over_frames"] == dict.fromkeys(METRICS)
    assert as_json(found)["models"][0]["frames_without_score"] == dict.fromkeys(METRICS, 1)


def test_no_score_prints_as_minus_zero():
    found = Evaluation("other", PROTOCOLS["exact"], 0, [model({"a": [-1e-12]}), model({"a": [-2e-12]})])
    assert "-0.0" not in "\n".join(text_lines(found))


def test_the_table_and_the_files_take_one_bootstrap():
    found = Evaluation("other", PROTOCOLS["exact"], 0, [FIRST, SECOND], with_published=True)
    text, record = list(text_lines(found)), as_json(found)
    assert found.differences("videos") is found.differences("videos")
    assert found.agreements is found.agreements
    assert record["difference"]["over_videos"]["nss"]["mean"] == found.differences("videos")["nss"].mean
    assert any("difference" in line for line in text)
