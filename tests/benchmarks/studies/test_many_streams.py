import pytest

from salema.benchmarks.studies.many_streams import ALONE, Case, compared, measure


def test_every_case_runs_in_every_turn(exported):
    cases = measure(exported(batch=None), "onnxruntime", rounds=2, seconds=0.02)
    assert {name: case.streams for name, case in cases.items()} == {
        ALONE: 1,
        "2, a model each": 2,
        "2, in a batch": 2,
        "4, a model each": 4,
        "4, in a batch": 4,
    }
    for case in cases.values():
        assert len(case.fps) == 2
        assert min(case.fps) > 0
        assert min(case.cpu_ms) > 0
        assert len(case.step_ms) >= 2 * case.streams


def test_rates_are_compared_within_a_turn():
    cases = {ALONE: Case(1, [10, 20, 40], [8, 8, 4], [1.0]), "2": Case(2, [20, 40, 40], [4, 4, 4], [*range(1, 101)])}
    found = compared(cases)
    assert found["2"]["ratio"] == 2
    assert found["2"]["ratio_low"] == 1.5
    assert found["2"]["fps"] == 40
    assert found["2"]["p50_ms"] == pytest.approx(50.5)
    assert found["2"]["p99_ms"] == pytest.approx(99.01)
    assert (found["2"]["cpu_ms"], found["2"]["cpu_ratio"]) == (4, 0.5)
    assert found[ALONE]["ratio"] == 1
