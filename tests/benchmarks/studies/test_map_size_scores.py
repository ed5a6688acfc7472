import json
from importlib.resources import files
from pathlib import Path

from salema.benchmarks.metrics.protocols import METRICS
from salema.benchmarks.studies import map_size_scores

ROOT = Path(__file__).parents[3]


def test_variants_of_one_map_score_nearly_the_same(monkeypatch):
    monkeypatch.setattr(map_size_scores, "FRAMES", 11)
    found = map_size_scores.measure()
    assert set(found["network"]["largest_difference"].values()) == {0}
    for metric, most in (("cc", 1e-3), ("nss", 0.05), ("sim", 0.02), ("auc_judd", 0.01)):
        assert 0 < found["source"]["largest_difference"][metric] < most
    assert set(found["source"]["mean"]) == set(METRICS)


def test_the_document_says_what_was_measured():
    record = json.loads((files("salema.benchmarks") / "results/map_size.json").read_text("utf-8"))
    text = (ROOT / "docs/datasets.md").read_text("utf-8")
    network, source = (record["variants"][name] for name in ("network", "source"))
    for metric in METRICS:
        difference = source["mean_difference"][metric]
        assert f"| {METRICS[metric]} | {network['mean'][metric]:.4f} | {difference:+.5f} |" in text
