import pytest

from salema.benchmarks.speed import harness
from salema.benchmarks.speed.harness import compare, percentile


@pytest.mark.parametrize(
    ("count", "percent", "expected"), [(1, 99, 0), (10, 90, 8), (100, 99, 98), (100, 50, 49), (20, 95, 18), (7, 99, 6)]
)
def test_percentiles_count_as_trtexec_does(count, percent, expected):
    assert percentile(list(range(count)), percent) == expected


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the cases move."""

    class Clock:
        now = 0.0

        def spend(self, ms):
            self.now += ms / 1e3

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(harness, "time", clock)
    return clock


def test_ratios_are_taken_within_a_round(clock):
    """The machine slows down threefold half way: medians move, ratios don't."""
    order, load = [], iter([1, 1, 1, 1, 3, 3, 3, 3])
    speed = {"now": 1}

    def slow():
        speed["now"] = next(load, speed["now"])
        order.append("slow")
        clock.spend(10 * speed["now"])

    def fast():
        order.append("fast")
        clock.spend(4 * speed["now"])

    found = compare({"slow": slow, "fast": fast}, "slow", rounds=7, warm_up=1)
    assert order[:2] == ["slow", "fast"]
    assert order[2:] == ["slow", "fast"] * 7
    assert found["slow"].ratio == 1
    assert found["fast"].ratio == pytest.approx(2.5)
    assert found["fast"].ratio_low == pytest.approx(2.5)
    assert found["fast"].ratio_high == pytest.approx(2.5)
    assert found["slow"].runs == 7
    assert found["slow"].median_ms == pytest.approx(30)


def test_every_call_of_a_round_is_a_run(clock):
    times = iter(range(1, 100))
    found = compare({"case": lambda: clock.spend(next(times))}, "case", rounds=4, inner=5, warm_up=3)["case"]
    assert found.runs == 20
    assert found.mean_ms == pytest.approx(sum(range(4, 24)) / 20)
    assert found.p99_ms == pytest.approx(23)
    assert found.p90_ms == pytest.approx(21)


def test_for_a_duration_each_case_has_its_turns_and_ratios_are_for_the_same_work(clock):
    spent, order = {"joules": 0.0}, []

    def case(name, ms, joules):
        def call():
            order.append(name)
            spent["joules"] += joules
            clock.spend(ms)

        return call

    cases = {"one": case("one", 30, 2), "three": case("three", 45, 6)}
    found = harness.compare_for(cases, "one", 1, {"one": 1, "three": 3}, lambda: spent["joules"])
    (one, one_joules), (three, three_joules) = found["one"], found["three"]
    assert (one.runs, three.runs) == (40, 30)  # 100 ms in each of ten turns, the last call to its end
    assert three.ratio == pytest.approx(2)
    assert (one_joules, three_joules) == (pytest.approx(2), pytest.approx(6))
    warm_up = ["one"] * 7 + ["three"] * 5  # 200 ms
    turn = ["one"] * (1 + 4) + ["three"] * (1 + 3)  # the first of each is not counted
    assert order == warm_up + turn * 10


def test_every_turn_is_told_before_it_begins(clock):
    told = []
    cases = {name: lambda: clock.spend(100) for name in ("a", "b")}
    harness.compare_for(cases, "a", 1, turn=lambda number, case: told.append((number, case)))
    assert told == [(number, case) for number in range(harness.ROUNDS + 1) for case in ("a", "b")]


def test_without_a_meter_there_are_no_joules(clock):
    ((_, joules),) = harness.compare_for({"one": lambda: clock.spend(1)}, "one", 0.01).values()
    assert joules is None
