import numpy as np
import pytest
import torch

from salema.export.graph.models import SaliencyStep
from salema.export.graph.verify import verify
from salema.export.weights.architecture import Architecture
from salema.export.weights.checkpoints import load_checkpoint
from salema.runtime.backends.opening import open_session
from salema.runtime.errors import VerificationError


def network(weights=None):
    weights = weights or load_checkpoint("seeded:16").weights
    return SaliencyStep(Architecture("salema", (30,)), weights).eval()


class Altered:
    """A session whose step is changed by a function."""

    def __init__(self, session, change):
        self.spec, self._session, self._change = session.spec, session, change
        self.from_host, self.to_host = session.from_host, session.to_host

    def step(self, frames, states, mix):
        return self._change(self._session, frames, states, mix)


def test_the_report_of_a_good_export(exported):
    with open_session(exported()) as session:
        report = verify(network(), session)
    assert 0 < report.map_max < 1e-5
    assert 0 < report.map_mean < report.map_max
    assert report.state_error < 1e-5
    assert 0.99999 < report.cc <= 1 + 1e-9
    assert report.control_max > 0.01


def forgets(session, frames, states, mix):
    return session.step(frames, states, np.ones_like(mix))


def ignores_reset(session, frames, states, mix):
    return session.step(frames, states, np.where(states_are_zero(session, states), mix, np.float32(0.1)))


def states_are_zero(session, states):
    return not session.to_host(states)["ema30"].any()


def drifts(session, frames, states, mix):
    maps, after = session.step(frames, states, mix)
    return maps, session.from_host({"ema30": session.to_host(after)["ema30"] * 1.001})


def gives_nan(session, frames, states, mix):
    maps, after = session.step(frames, states, mix)
    return maps * np.float32("nan"), after


@pytest.mark.parametrize("change", [forgets, ignores_reset, drifts, gives_nan])
def test_a_wrong_export_is_caught(exported, change):
    with open_session(exported()) as session, pytest.raises(VerificationError, match="not the PyTorch model"):
        verify(network(), Altered(session, change))


def test_other_weights_are_caught(exported):
    weights = load_checkpoint("seeded:16").weights
    weights["salgan.60.bias"] = weights["salgan.60.bias"] + 0.01
    with open_session(exported()) as session, pytest.raises(VerificationError, match="maps differ by 0.002"):
        verify(network(weights), session)


def test_a_network_that_does_not_see_is_caught(exported, tmp_path):
    weights = {key: torch.zeros_like(value) for key, value in load_checkpoint("seeded:16").weights.items()}
    path = tmp_path / "blind.pt"
    torch.save(weights, path)
    with pytest.raises(VerificationError, match="the check can't tell"):
        exported(str(path))
