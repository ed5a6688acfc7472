from fractions import Fraction

import pytest
import torch

from salema.export.weights.architecture import Architecture
from salema.export.weights.checkpoint_files import save_safetensors
from salema.export.weights.checkpoints import load_checkpoint
from salema.runtime.errors import CheckpointError, UsageError
from salema.training.initial import choose_alpha, choose_start, drawn, named, parse_width


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
        start = choose_start(str(generator), arch, Fraction(1), 0, lambda _: None)
        assert (start.architecture.name.lower(), start.alpha) == (arch, None)
        assert set(start.weights) - set(old) == extra
        assert torch.equal(start.weights["salgan.30.weight"], old["salgan.30.weight"])


def test_a_convlstm_of_56_takes_the_layers_it_has(generator):
    weights = choose_start(str(generator), "salclstm56", Fraction(1), 0, lambda _: None).weights
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


def test_training_adds_an_average_to_a_generator(generator):
    said = []
    start = choose_start(str(generator), "auto", Fraction(1), 0, said.append, averaged=True)
    assert start.architecture.name == "SalEMA30"
    assert choose_alpha("learned", start, "paper")[0] == 0.25
    assert said[-1].endswith(
        "SalEMA30 (the file's metadata: a generator, which gets an average; --arch salgan trains it alone)"
    )
    assert choose_start(str(generator), "auto", Fraction(1), 0, said.append).architecture.name == "SalGAN"


def test_a_salema_without_an_alpha_begins_where_it_is_exported(tmp_path):
    """At 0.1, the paper's, and not at the recipe's 0.5."""
    path = tmp_path / "salema.safetensors"
    save_safetensors(path, load_checkpoint("seeded:8").weights, None, Architecture("salema", (30,)), trained=True)
    start = choose_start(str(path), "auto", Fraction(1), 0, lambda _: None)
    assert start.sha256 == load_checkpoint(str(path)).sha256
    begins, _ = choose_alpha("learned", start, "default")
    assert torch.tensor(begins).sigmoid().item() == pytest.approx(0.1)
    assert choose_alpha("0.3", start, "default") == (None, 0.3)
    drawn_start = choose_start("seeded:8", "auto", Fraction(1), 0, lambda _: None)
    assert choose_alpha("learned", drawn_start, "default")[0] == 0
