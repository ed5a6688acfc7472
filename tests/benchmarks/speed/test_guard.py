from pathlib import Path

import pytest

from salema.benchmarks.speed.cases import Plan
from salema.benchmarks.speed.guard import check_baseline, find_changes, in_one_only, other_machine
from salema.runtime.errors import UsageError


def record(case="m: onnxruntime", ratio=2.0, spread=0.1, baseline="pytorch", median_ms=100.0, **more):
    timing = {
        "ratio": ratio,
        "ratio_low": ratio - spread / 2,
        "ratio_high": ratio + spread / 2,
        "median_ms": median_ms,
        "p90_ms": median_ms * 1.2,
    }
    return {
        "case": case,
        "backend": "onnxruntime",
        "precision": "fp32",
        "batch": 1,
        "baseline": baseline,
        "model": {"weights_sha256": "0", "height": 192, "width": 256},
        "is_peer": False,
        "timing": timing,
        "fps": 1e3 / median_ms,
        "environment": {"cpu": "a", "cores": 2},
        **more,
    }


@pytest.mark.parametrize(
    ("ratio", "spread", "verdict"),
    [(2.0, 0.1, "same"), (1.96, 0.01, "same"), (1.7, 0.1, "slower"), (1.7, 1.0, "same"), (2.4, 0.1, "faster")],
)
def test_slower_is_a_ratio_beyond_both_quartiles_and_five_percent(ratio, spread, verdict):
    (change,) = find_changes([record()], [record(ratio=ratio, spread=spread)])
    assert (change.case, change.measure, change.before, change.now) == ("m: onnxruntime", "ratio", 2.0, ratio)
    assert change.verdict == verdict


@pytest.mark.parametrize(("median_ms", "verdict"), [(100, "same"), (119, "same"), (125, "slower"), (80, "faster")])
def test_a_baseline_of_ours_is_compared_by_its_times(median_ms, verdict):
    old, new = (record(baseline="m: onnxruntime", median_ms=ms) for ms in (100.0, float(median_ms)))
    (change,) = find_changes([old], [new])
    assert change.measure == "fps"
    assert change.verdict == verdict


def test_a_peer_that_is_the_baseline_is_not_judged():
    peer = record(case="pytorch", is_peer=True)
    assert [change.case for change in find_changes([peer, record()], [peer, record()])] == ["m: onnxruntime"]


def test_other_cases_and_other_baselines_are_refused():
    with pytest.raises(UsageError, match="none of this run's models"):
        find_changes([record(case="other")], [record()])
    with pytest.raises(UsageError, match="over eager, and here over pytorch"):
        find_changes([record(baseline="eager")], [record()])


def test_another_machine_is_told():
    assert other_machine([record()], [record()]) is None
    there = record(environment={"cpu": "b", "cores": 2})
    assert other_machine([there], [record()]) == "cpu b there, a here"
    there = record(environment={"cpu": "a", "cores": 2, "power_mode": "NV Power Mode: 15W\n2"})
    assert other_machine([there], [record()]) == "power_mode 15W there, None here"


def test_the_baseline_of_a_model_with_its_own_backends_is_its_own():
    check_baseline([record(baseline="m: ncnn")], Plan((Path("m"),), own={0: ("ncnn",)}))
    with pytest.raises(UsageError, match="over m: auto, and here over m: ncnn"):
        check_baseline([record(baseline="m: auto")], Plan((Path("m"),), own={0: ("ncnn",)}))


def test_cases_of_one_run_only_are_named():
    peer, ours, other = record(case="pytorch", is_peer=True), record(), record(case="n: ncnn", precision="int8")
    assert in_one_only([peer, ours], [ours]) == []
    assert in_one_only([ours, other], [ours]) == ["only that file has n: ncnn in int8"]
    assert in_one_only([ours], [other]) == [
        "only that file has m: onnxruntime in fp32",
        "only this run has n: ncnn in int8",
    ]
