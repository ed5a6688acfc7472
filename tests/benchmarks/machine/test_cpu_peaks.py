"""The record of the peaks: each CPU has its entry, with its products beside them."""

import json
import sys

import torch

from salema.benchmarks.machine import cpu_peaks


def test_a_cpu_is_added_beside_others(tmp_path, monkeypatch, capsys):
    file = tmp_path / "peaks.json"
    file.write_text(json.dumps({"Other (1/2; avx2)": {"measured": []}}))
    monkeypatch.setattr(cpu_peaks, "measure", measured)
    monkeypatch.setattr(cpu_peaks, "usable_cores", lambda: [0, 2, 3])
    monkeypatch.setattr(sys, "argv", ["cpu_peaks", str(file)])
    cpu_peaks.main()
    kept = json.loads(file.read_text())
    assert len(kept) == 2
    (ours,) = (cpu for name, cpu in kept.items() if name == cpu_peaks.name_of(cpu.get("environment", NONE)))
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
