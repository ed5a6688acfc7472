import numpy as np
import pytest

from salema.benchmarks.studies.ncnn_choices import SPINS, choices, spinning
from salema.runtime.metrics import cc


@pytest.fixture(scope="module")
def plain(exported):
    return exported(for_="ncnn")


def test_what_is_undone_changes_the_time_not_the_map(plain, tmp_path):
    maps = {name: step() for name, step in choices(plain, plain, tmp_path).items()}  # its INT8 cases take any file
    assert len(maps) == 7
    texts = [(tmp_path / f"{index}.param").read_text() for index in range(7)]
    assert len(set(texts)) == 4
    for found in maps.values():
        assert cc(found, maps["fp32"]) > 0.999999
        assert np.abs(found - maps["fp32"]).max() < 1e-4


def test_each_way_to_wait_runs_in_a_process_of_its_own(plain):
    found = spinning(plain, processes=1, steps=2)
    assert {name: len(times) for name, times in found.items()} == dict.fromkeys(SPINS, 1)
    assert all(0 < times[0] < 60_000 for times in found.values())
