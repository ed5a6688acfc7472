"""The page on the weights that ship says what was measured, beside what `photograph_scores` and `precisions` check."""

import json
import math
from pathlib import Path

import pytest

from salema.export.weights.checkpoints import load_checkpoint
from salema.training.shipping.run_speed import BACKENDS, LOOPS

ROOT = Path(__file__).parents[3]
PUBLISHED = "pytorch, the published way"
PAGE = " ".join((ROOT / "docs/models.md").read_text("utf-8").split())


def record(name):
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text("utf-8"))


RUNS = record("training")["runs"]
SHIPPED = {"nano": "nano, clips"}


def generation(measured):
    return [int(number) for number in measured["environment"]["cpu_family_and_model"].split("/")]


def test_the_speed_of_whole_runs():
    """A column for each CPU, by its generation; the first was measured before there were loops."""
    columns = [each["runs"] for each in sorted(record("whole_runs"), key=generation)]
    ways = [f"salema-run, {backend}" for backend in BACKENDS]
    jobs = {"video": [*ways, *(f"{peer}, a loop" for peer in LOOPS)], "folder": [ways[0], PUBLISHED]}
    for job, name in ((job, name) for job, names in jobs.items() for name in names):
        narrow = [each["nano"].get(job, {}).get(name) for each in columns]
        wide = [each["seeded"][job][name] for each in columns[1:]]
        for fps in (narrow, wide):
            assert f"| {' | '.join(format(one['median'], '.1f') if one else '-' for one in fps)} |" in PAGE


@pytest.mark.parametrize("name", RUNS)
def test_each_run_is_in_the_table_whether_it_ships_or_not(name):
    best = max(RUNS[name]["scores"], key=lambda one: one["nss"])
    numbers = f"{best['nss']:.3f} | {best['auc_judd']:.3f} | {best['cc']:.3f}"
    assert f"| {name} | {RUNS[name]['settings']['seed']} | {best['epoch']} | {numbers} |" in PAGE


@pytest.mark.parametrize(("name", "run"), SHIPPED.items())
def test_what_ships_is_what_its_last_run_left(name, run):
    coefficient = RUNS[run]["coefficient"][1]
    assert 1 / (1 + math.exp(-load_checkpoint(name).learned_alpha)) == pytest.approx(coefficient, abs=0.02)
    assert f"{coefficient:.2f}" in PAGE


def test_what_the_mean_of_weights_is_worth():
    kept = record("training")["averages_of_weights"]
    assert set(kept["of"]) <= set(RUNS)
    best, last = (kept[f"their {epochs} epochs"] for epochs in ("best", "last"))
    assert f"an NSS of {best['nss']:.3f}, {between(*best['beyond_nano'])}" in PAGE
    assert between(*last["beyond_nano"]) in PAGE


def between(mean, low, high):
    return f"{mean:.3f} above ({low:.3f} to {high:.3f}"
