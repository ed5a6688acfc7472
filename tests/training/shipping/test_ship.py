import pytest
import torch

from salema.export.weights.architecture import Architecture
from salema.export.weights.checkpoints import load_checkpoint
from salema.export.weights.seeded import seeded_state_dict
from salema.runtime.errors import CheckpointError, UsageError
from salema.training.shipping.ship import ship
from salema.training.state import save_checkpoint


@pytest.fixture
def tensors():
    weights = {key: torch.from_numpy(array) for key, array in seeded_state_dict("salema", 16).items()}
    return weights | {"alpha": torch.tensor([-0.8123457])}


def test_a_run_is_shipped_in_fp16_with_its_coefficient_as_it_is(tmp_path, tensors):
    save_checkpoint(tmp_path / "best.pt", 3, tensors, Architecture("salema", (7,)))
    path = ship(tmp_path, "tiny", tmp_path / "shipped")
    shipped = load_checkpoint(str(path))
    assert shipped.trained
    assert shipped.hint.architecture == Architecture("salema", (7,))
    assert shipped.learned_alpha == tensors.pop("alpha").item()
    assert shipped.weights.keys() == tensors.keys()
    for key, value in tensors.items():
        torch.testing.assert_close(shipped.weights[key], value.half().float(), rtol=0, atol=0)


def test_weights_too_large_for_fp16_are_refused(tmp_path, tensors):
    tensors["salgan.0.weight"] *= 1e9
    save_checkpoint(tmp_path / "best.pt", 3, tensors, Architecture("salema", (30,)))
    with pytest.raises(CheckpointError, match="0.weight: too large for FP16"):
        ship(tmp_path, "tiny", tmp_path / "shipped")
    assert not (tmp_path / "shipped").exists()


@pytest.mark.parametrize("name", ["../tiny", "seeded", "tiny.pt"])
def test_a_name_is_a_bare_word(tmp_path, name):
    with pytest.raises(UsageError, match="give a word, such as nano"):
        ship(tmp_path, name, tmp_path)
