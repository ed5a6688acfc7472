import numpy as np
import pytest

from salema.benchmarks.studies.ncnn_choices import choices
from salema.runtime.backends.ncnn_session import load_net
from salema.runtime.metrics import cc


@pytest.fixture(scope="module")
def plain(exported):
    return exported()


def test_an_undone_choice_changes_the_time_and_not_the_map(plain, monkeypatch):
    texts = []

    def noted(param, *arguments):
        texts.append(param)
        return load_net(param, *arguments)

    monkeypatch.setattr("salema.benchmarks.studies.ncnn_choices.load_net", noted)
    maps = {name: step() for name, step in choices(plain, plain).items()}  # its INT8 cases take any form
    assert len(maps) == 7
    assert len(set(texts)) == 4
    for found in maps.values():
        assert cc(found, maps["fp32"]) > 0.999999
        assert np.abs(found - maps["fp32"]).max() < 1e-4
