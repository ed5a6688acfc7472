import pytest
import torch
from safetensors.torch import load_file, save_file

from salema.export.weights.architecture import Architecture
from salema.export.weights.checkpoint_files import save_safetensors
from salema.export.weights.checkpoints import load_checkpoint
from salema.export.weights.eight_bits import packed, unpacked
from salema.export.weights.seeded import seeded_state_dict
from salema.runtime.errors import CheckpointError


def test_levels_come_back_as_they_were():
    levels = torch.tensor([[127.0, -3, 0, 1], [5, -127, 64, 2]]).reshape(2, 1, 2, 2)
    weights = {"a.weight": levels * torch.tensor([0.5, 3e-4]).reshape(2, 1, 1, 1), "a.bias": torch.tensor([0.25, -3])}
    stored = packed(weights)
    assert {key: str(value.dtype) for key, value in stored.items()} == {
        "a.weight": "torch.int8",
        "a.weight.scale": "torch.float32",
        "a.bias": "torch.float16",
    }
    assert torch.equal(stored["a.weight"].float(), levels)
    torch.testing.assert_close(unpacked(stored)["a.weight"], weights["a.weight"])
    assert torch.equal(unpacked(stored)["a.bias"].float(), weights["a.bias"])


def test_a_channel_of_zeros_stays_one():
    stored = packed({"a.weight": torch.zeros(2, 1, 3, 3)})
    assert not unpacked(stored)["a.weight"].any()


@pytest.fixture
def file(tmp_path):
    weights = {key: torch.from_numpy(array) for key, array in seeded_state_dict("salema", 64).items()}
    save_safetensors(tmp_path / "w.safetensors", packed(weights), 0.5, Architecture("salema", (30,)), trained=True)
    return tmp_path / "w.safetensors"


@pytest.mark.parametrize(
    "change",
    [
        {"salgan.0.weight.scale": torch.ones(1)},
        {"salgan.0.weight.scale": torch.ones(2, dtype=torch.float64)},
        {"salgan.0.bias.scale": torch.ones(1)},
        {"salgan.0.weight": torch.ones(2, 3, 3, 3), "salgan.0.weight.scale": torch.ones(2)},
        {"salgan.99.weight.scale": torch.ones(1)},
    ],
)
def test_scales_that_fit_no_weight_are_refused(file, change):
    assert load_checkpoint(str(file)).weights["salgan.0.weight"].dtype == torch.float32
    tensors = load_file(file)
    tensors["salgan.0.weight"] = torch.ones(2, 3, 3, 3, dtype=torch.int8)
    save_file(tensors | change, file)
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load_checkpoint(str(file))


def test_eight_bits_without_a_scale_are_no_weights(file):
    tensors = load_file(file)
    del tensors["salgan.2.weight.scale"]
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"salgan\.2\.weight: not a plain floating tensor"):
        load_checkpoint(str(file))
