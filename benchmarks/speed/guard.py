"""Which cases got slower or faster since an earlier run, beyond noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from salema.benchmarks.machine.environment import power_mode_in_words
from salema.benchmarks.speed.cases import Plan, model_names
from salema.benchmarks.speed.records import key_of
from salema.runtime.errors import UsageError
from salema.runtime.wording import listed

LEAST_CHANGE = 0.05
"""A smaller change counts as noise, however narrow the quartiles: two runs on one machine differ by as much."""


_LEAST_TIME_CHANGE = 0.10  # of times, which the machine's load and clock also change


@dataclass(frozen=True)
class Change:
    """One case before and now.

    `measure` is `ratio`, to the baseline of each run; for the baseline itself `fps`. The verdict is `slower`, `faster`
    or `same`: the change is small, or the quartiles (of times: median and p90) overlap.
    """

    case: str
    measure: str
    before: float
    now: float
    verdict: str


def check_baseline(before: Sequence[dict[str, Any]], plan: Plan) -> None:
    """Refuses, before long work, an earlier run that has another baseline.

    Raises:
        UsageError: it has.
    """
    baseline = (*plan.peers, f"{model_names(plan.models)[0]}: {plan.backends_of(0)[0]}")[0]
    if before[0]["baseline"] not in {baseline, f"{baseline}, batch {plan.batches[0]}"}:
        raise UsageError(
            f"--against: ratios there are over {before[0]['baseline']}, and here over {baseline}; name the same first"
            " case, with --compare or --model"
        )


def find_changes(before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> list[Change]:
    """Compares runs by their ratios, which the machine's load and clock do not change.

    Where the baseline is one of our models, its own times are compared.

    Raises:
        UsageError: no case is in both, or their ratios are over different baselines.
    """
    then = {key_of(record): record for record in before}
    pairs = [(then[key_of(record)], record) for record in now if key_of(record) in then]
    pairs = [(old, new) for old, new in pairs if not new["is_peer"]]
    if not pairs:
        raise UsageError("--against: none of this run's models is in that file; compare the same cases")
    for old, new in pairs:
        for name in ("weights_sha256", "height", "width"):
            if old["model"][name] != new["model"][name]:
                raise UsageError(f"--against: {new['case']} is of another {name} there; compare the same model")
        if old["baseline"] != new["baseline"]:
            raise UsageError(
                f"--against: ratios there are over {old['baseline']}, and here over {new['baseline']}; name the same"
                " first case"
            )
    return [_change_of_time(*pair) if pair[1]["case"] == pair[1]["baseline"] else _change(*pair) for pair in pairs]


def in_one_only(before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> list[str]:
    """Returns which of our cases can't be compared, a sentence for each run that has some."""
    sentences = []
    for where, records, others in (("that file", before, now), ("this run", now, before)):
        keys = {key_of(other) for other in others}
        alone = [record for record in records if not record["is_peer"] and key_of(record) not in keys]
        if alone:
            cases = listed(f"{record['case']} in {record['precision']}" for record in alone)
            sentences.append(f"only {where} has {cases}")
    return sentences


def _change(old: dict[str, Any], new: dict[str, Any]) -> Change:
    a, b = old["timing"], new["timing"]
    verdict = "same"
    if b["ratio_high"] < a["ratio_low"] and b["ratio"] < (1 - LEAST_CHANGE) * a["ratio"]:
        verdict = "slower"
    elif b["ratio_low"] > a["ratio_high"] and b["ratio"] > (1 + LEAST_CHANGE) * a["ratio"]:
        verdict = "faster"
    return Change(new["case"], "ratio", a["ratio"], b["ratio"], verdict)


def _change_of_time(old: dict[str, Any], new: dict[str, Any]) -> Change:
    a, b = old["timing"], new["timing"]
    verdict = "same"
    if b["median_ms"] > max(a["p90_ms"], (1 + _LEAST_TIME_CHANGE) * a["median_ms"]):
        verdict = "slower"
    elif a["median_ms"] > max(b["p90_ms"], (1 + _LEAST_TIME_CHANGE) * b["median_ms"]):
        verdict = "faster"
    return Change(new["case"], "fps", old["fps"], new["fps"], verdict)


def other_machine(before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> str | None:
    """Returns how the machines of two runs differ, in words; None for the same machine."""
    environments = (run[0]["environment"] for run in (before, now))
    there, here = ({**found, "power_mode": power_mode_in_words(found) or None} for found in environments)
    facts = [
        name
        for name in ("cpu", "cpu_features", "cores", "gpus", "board", "power_mode")
        if there.get(name) != here.get(name)
    ]
    return "; ".join(f"{name} {there.get(name)} there, {here.get(name)} here" for name in facts) or None
