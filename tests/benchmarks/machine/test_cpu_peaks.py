"""The record of the peaks: each CPU has its entry, with its products beside them."""

import json
import sys
from pathlib import Path

import torch

from salema.benchmarks.machine import cpu_peaks
from salema.benchmarks.machine.environment import cpu_in_words

ROOT = Path(__file__).parents[3]


def test_a_cpu_is_added_beside_others(tmp_path, monkeypatch, capsys):
    file = tmp_path / "peaks.json"
    file.write_text(json.dumps({"Other (1/2; avx2)": {"measured": []}}))
    monkeypatch.setattr(cpu_peaks, "measure", measured)
    monkeypatch.setattr(cpu_peaks, "usable_cores", lambda: 3)
    monkeypatch.setattr(sys, "argv", ["cpu_peaks", str(file)])
    cpu_peaks.main()
    kept = json.loads(file.read_text())
    assert len(kept) == 2
    (ours,) = (cpu for name, cpu in kept.items() if name == cpu_in_words(cpu.get("environment", NONE)))
    assert [one["peaks"]["cores"] for one in ours["measured"]] == [1, 2, 3]
    assert "| 2 | fp32 | FMA, 512 bits | 256 | 64 | 2.00 | 75% (1024x1024) |" in capsys.readouterr().out


NONE = {"cpu": None, "cpu_family_and_model": None, "cpu_features": []}


def measured(cores):
    peaks = {
        "operations_per_s": {"fp32": cores * 128e9},
        "instructions": {"fp32": "FMA, 512 bits"},
        "clock_ghz": {"fp32": 2.0},
        "cores": cores,
        "how": "",
    }
    return {"peaks": peaks, "products": {"512": {"fp32": cores * 64e9}, "1024": {"fp32": cores * 96e9}}}


def test_peaks_and_products_are_measured_on_the_cores_asked_for():
    threads = torch.get_num_threads()
    found = cpu_peaks.measure(1, sizes=(64,))
    assert found["peaks"]["cores"] == 1
    assert found["products"]["64"]["fp32"] < found["peaks"]["operations_per_s"]["fp32"]
    assert torch.get_num_threads() == threads


def test_of_several_runs_the_best_stays():
    before, now = measured(2), measured(2)
    before["peaks"] |= {"operations_per_s": {"fp32": 300e9, "int8": 1e12}}
    before["peaks"] |= {"instructions": {"fp32": "old", "int8": "old"}, "clock_ghz": {"fp32": 2.5, "int8": 2.4}}
    before["products"] = {"512": {"fp32": 1e9, "int8": 2e9}, "2048": {"fp32": 3e9}}
    found = cpu_peaks.best_of(before, now)
    assert found["peaks"]["operations_per_s"] == {"fp32": 300e9, "int8": 1e12}
    assert found["peaks"]["instructions"] == {"fp32": "old", "int8": "old"}
    assert found["peaks"]["clock_ghz"] == {"fp32": 2.5, "int8": 2.4}
    assert found["products"] == {
        "512": {"fp32": 128e9, "int8": 2e9},
        "1024": {"fp32": 192e9},
        "2048": {"fp32": 3e9},
    }
    lower = {**before, "peaks": {**before["peaks"], "operations_per_s": {"fp32": 1.0}}}
    assert cpu_peaks.best_of(lower, now)["peaks"]["instructions"] == {"fp32": "FMA, 512 bits"}


def test_the_page_has_the_table():
    kept = json.loads((ROOT / "benchmarks/results/cpu_peaks.json").read_text())
    assert cpu_peaks.table(kept) in (ROOT / "docs/speed.md").read_text("utf-8")


def test_no_product_reaches_the_peak():
    kept = json.loads((ROOT / "benchmarks/results/cpu_peaks.json").read_text())
    for cpu in kept.values():
        for one in cpu["measured"]:
            peaks = one["peaks"]["operations_per_s"]
            for rates in one["products"].values():
                assert all(rate < peaks[precision] for precision, rate in rates.items() if precision in peaks)
