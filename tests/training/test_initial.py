from fractions import Fraction

import pytest
import torch

from salema.export.weights.architecture import Architecture
from salema.export.weights.checkpoint_files import save_safetensors
from salema.export.weights.checkpoints import load_checkpoint
from salema.runtime.errors import CheckpointError, UsageError
from salema.training.initial import choose_start, drawn, named, parse_width


@pytest.mark.parametrize(("text", "width"), [("1", 1), ("1/8", Fraction(1, 8)), ("0.375", Fraction(3, 8))])
def test_widths_are_read(text, width):
    assert parse_width(text) == width


@pytest.mark.parametrize("text", ["0", "-1/8", "2", "0.3", "1/16", "wide", "1/0"])
def test_widths_that_give_no_multiples_of_8_are_refused(text):
    with pytest.raises(UsageError, match="--width"):
        parse_width(text)


@pytest.mark.parametrize(
    ("arch", "name"),
    [
        ("salema30", "SalEMA30"),
        ("SalEMA", "SalEMA30"),
        ("salema29r", "SalEMA29R"),
        ("salema7+54", "SalEMA7+54"),
        ("salgan", "SalGAN"),
        ("SALCLSTM56", "SalCLSTM56"),
        ("salclstm30R", "SalCLSTM30R"),
    ],
)
def test_architectures_are_named_in_any_case(arch, name):
    assert named(arch).name == name


def test_drawn_weights_are_he_scaled_and_differ_by_seed():
    first, again, other = (drawn("salema", Fraction(1, 8), seed) for seed in (1, 1, 2))
    assert first["salgan.2.weight"].shape == (8, 8, 3, 3)
    assert first["salgan.28.weight"].std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
    assert torch.equal(first["salgan.0.weight"], again["salgan.0.weight"])
    assert not torch.equal(first["salgan.0.weight"], other["salgan.0.weight"])
    assert not any(tensor.any() for key, tensor in first.items() if key.endswith("bias"))


def test_gates_are_xavier_normal():
    gates = drawn("salclstm30", Fraction(1, 8), 0)["Gates.weight"]
    assert gates.shape == (256, 128, 3, 3)
    assert gates.std().item() == pytest.approx((2 / (9 * (128 + 256))) ** 0.5, rel=0.02)


@pytest.fixture
def generator(tmp_path):
    checkpoint = load_checkpoint("seeded:8")
    path = tmp_path / "salgan.safetensors"
    save_safetensors(path, checkpoint.weights, None, Architecture("salgan"), trained=True)
    return path


def test_a_generator_begins_a_salema_or_a_convlstm(generator):
    old = load_checkpoint(str(generator)).weights
    for arch, extra in (("salema30", set()), ("salclstm30", {"Gates.weight", "Gates.bias"})):
        architecture, weights, learned = choose_start(str(generator), arch, Fraction(1), 0, lambda _: None)
        assert (architecture.name.lower(), learned) == (arch, None)
        assert set(weights) - set(old) == extra
        assert torch.equal(weights["salgan.30.weight"], old["salgan.30.weight"])


def test_a_convlstm_of_56_takes_the_layers_it_has(generator):
    _, weights, _ = choose_start(str(generator), "salclstm56", Fraction(1), 0, lambda _: None)
    assert "salgan.60.weight" not in weights
    assert weights["final_convs.0.weight"].shape == (8, 16, 3, 3)


def test_a_convlstm_can_not_begin_a_generator(tmp_path):
    path = tmp_path / "lstm.safetensors"
    weights = load_checkpoint("seeded:8", "salclstm30").weights
    save_safetensors(path, weights, None, Architecture("salclstm30"), trained=True)
    with pytest.raises(CheckpointError, match="holds salclstm30, which can't begin a salema"):
        choose_start(str(path), "salema30", Fraction(1), 0, lambda _: None)


def test_a_width_is_for_drawn_weights_alone(generator):
    with pytest.raises(UsageError, match="--width 1/8: is for --init seeded"):
        choose_start(str(generator), "auto", Fraction(1, 8), 0, lambda _: None)
