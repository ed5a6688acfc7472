import math

import pytest

from salema.export.weights.architecture import (
    CONVS,
    LAYERS,
    Architecture,
    Hint,
    choose_architecture,
    doubt_of_name,
    effective_coefficient,
    hint_from_name,
)
from salema.runtime.errors import CheckpointError, UsageError

EMA30 = Architecture("salema", (30,))


def test_layers_are_the_published_ones():
    published = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 30, 32, 34, 37, 39, 41, 44, 46, 48, 51, 53, 56, 58, 60]
    assert list(CONVS) == published
    assert len(LAYERS) == 62
    assert [i for i, layer in enumerate(LAYERS) if layer == "M"] == [4, 9, 16, 23]
    assert [i for i, layer in enumerate(LAYERS) if layer == "U"] == [36, 43, 50, 55]


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        (Architecture("salgan"), "SalGAN"),
        (EMA30, "SalEMA30"),
        (Architecture("salema", (30,), residual=True), "SalEMA30R"),
        (Architecture("salema", (30, 54)), "SalEMA30+54"),
        (Architecture("salclstm30", residual=True), "SalCLSTM30R"),
        (Architecture("salclstm56"), "SalCLSTM56"),
    ],
)
def test_names(architecture, name):
    assert architecture.name == name


@pytest.mark.parametrize(
    ("file", "kind", "expected"),
    [
        ("SalEMA30.pt", "salema", EMA30),
        ("SalEMA7.pt", "salema", Architecture("salema", (7,))),
        ("SalEMA61R.pt", "salema", Architecture("salema", (61,), residual=True)),
        ("SalEMA30R.pt", "salema", Architecture("salema", (30,), residual=True)),
        ("SalBCE.pt", "salema", Architecture("salgan")),
        ("SalGAN.pt", "salema", Architecture("salgan")),
        ("SalCLSTM30R.pt", "salclstm30", Architecture("salclstm30", residual=True)),
        ("SalCLSTM30.pt", "salclstm30", None),
        *[(f"SalEMA{loc}.pt", "salema", None) for loc in (0, 1, 29, 31, 99, "07", "")],
        *[(name, "salema", None) for name in ("salema0.pt", "salema7.pt", "SalEMA7_best.pt", "mySalEMA7.pt")],
        *[(name, "salema", None) for name in ("SalEMA30r.pt", "SalEMA30.pth", "SalEMA30.pt.bak", "SalGAN_port.pt")],
        ("SalCLSTM30R.pt", "salema", None),
        ("SalBCE.pt", "salclstm56", None),
        ("SalEMA30.pt", "salclstm30", None),
        ("weights.pt", "salema", None),
    ],
)
def test_hints(file, kind, expected):
    hint = hint_from_name(file, kind)
    assert (hint and hint.architecture) == expected


@pytest.mark.parametrize(
    ("file", "kind", "doubted"),
    [
        ("salema0.pt", "salema", True),
        ("SalEMA7_best.pt", "salema", True),
        ("my-sal_ema-54.pt", "salema", True),
        ("salgan_port.pt", "salema", True),
        ("salclstm30r.pt", "salclstm30", True),
        ("SalEMA7.pt", "salema", False),
        ("SalCLSTM30R.pt", "salclstm30", False),
        ("SalCLSTM30.pt", "salclstm30", False),
        ("salema_best.pt", "salema", False),
        ("weights.pt", "salema", False),
    ],
)
def test_a_name_that_only_looks_published_is_said_not_to_be_believed(file, kind, doubted):
    doubt = doubt_of_name(file, kind)
    assert (doubt is not None) == doubted
    assert doubt is None or doubt.startswith(f"the file's name {file} was not believed")


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        (Architecture("salema", (7,)), "the published code's: the state at 7 is kept after the ReLU"),
        (Architecture("salema", (2, 7)), "the published code's: the state at 2 and 7 is kept after the ReLU"),
        (Architecture("salema", (1,), residual=True), "the published code's: what is added"),
        (Architecture("salema", (7,), residual=True), ""),
        (Architecture("salema", (8,)), ""),
        (EMA30, ""),
        (Architecture("salgan"), ""),
        (Architecture("salema", (7,), plain_recurrence=True), "plain, not the published code's"),
        (Architecture("salema", (30,), plain_recurrence=True), "plain, which is the published code's here"),
    ],
)
def test_the_recurrence_in_words(architecture, words):
    assert architecture.recurrence.startswith(words)
    assert bool(architecture.recurrence) == bool(words)


@pytest.mark.parametrize(
    ("kind", "hint", "options", "expected", "source"),
    [
        ("salema", None, ("auto", (), None), EMA30, "the default"),
        ("salema", None, ("auto", (7,), None), Architecture("salema", (7,)), "your options"),
        ("salema", None, ("salgan", (), None), Architecture("salgan"), "your options"),
        ("salema", "SalBCE.pt", ("auto", (), None), Architecture("salgan"), "the file's name SalBCE.pt"),
        ("salema", "SalBCE.pt", ("auto", (30,), None), EMA30, "your options"),
        ("salema", "SalEMA30R.pt", ("auto", (), False), EMA30, "the file's name SalEMA30R.pt and your options"),
        ("salema", "SalEMA30R.pt", ("auto", (7,), None), Architecture("salema", (7,)), "SalEMA30R.pt and your options"),
        ("salema", "SalEMA7.pt", ("auto", (), True), Architecture("salema", (7,), residual=True), "and your options"),
        ("salclstm30", None, ("auto", (), True), Architecture("salclstm30", residual=True), "your options"),
        ("salclstm56", None, ("salclstm56", (), None), Architecture("salclstm56"), "your options"),
        ("salclstm56", None, ("auto", (), None), Architecture("salclstm56"), "the checkpoint's keys"),
    ],
)
def test_options_win_over_hints_and_hints_over_defaults(kind, hint, options, expected, source):
    architecture, said = choose_architecture(kind, hint and hint_from_name(hint, kind), *options)
    assert architecture == expected
    assert said.endswith(source)


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("salema", ("auto", (62,), None), "locations go from 0 to 61"),
        ("salema", ("auto", (-1,), None), "locations go from 0 to 61"),
        ("salema", ("auto", (30, 30), None), "two that differ"),
        ("salema", ("auto", (1, 2, 3), None), "two that differ"),
        ("salema", ("auto", (54, 30), None), "earlier layer first"),
        ("salema", ("auto", (30, 54), True), "--residual is for"),
        ("salema", ("salgan", (30,), None), "only SalEMA has one"),
        ("salema", ("salgan", (), True), "--residual is for"),
        ("salema", ("salclstm30", (), None), "holds salema weights"),
        ("salema", ("SalEMA", (), None), "not one of auto, salgan"),
        ("salclstm30", ("auto", (30,), None), "only SalEMA has one"),
        ("salclstm30", ("salema", (), None), "holds salclstm30 weights"),
        ("salclstm56", ("auto", (), True), "--residual is for"),
    ],
)
def test_contradicting_options_are_refused(kind, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        choose_architecture(kind, None, *options)


def test_a_hint_of_another_family_than_the_options_is_not_used():
    hint = Hint(Architecture("salema", (7,), residual=True), "a name")
    assert choose_architecture("salema", hint, "salgan", (), None) == (Architecture("salgan"), "your options")


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("learned", "alpha", "through", "expected", "source"),
    [
        (None, None, False, 0.1, "the default 0.1, used directly"),
        (None, 0.3, False, 0.3, "--alpha 0.3, used directly"),
        (None, 1.0, False, 1.0, "--alpha 1, used directly"),
        (None, None, True, sigmoid(0.1), "sigmoid of the default 0.1"),
        (None, -3.0, True, sigmoid(-3.0), "sigmoid of --alpha -3"),
        (0.25, None, False, sigmoid(0.25), "sigmoid of the checkpoint's learned alpha 0.25"),
    ],
)
def test_both_readings_of_the_coefficient(learned, alpha, through, expected, source):
    coefficient, said = effective_coefficient(learned, alpha, sigmoid=through)
    assert coefficient == pytest.approx(expected, abs=1e-15)
    assert said == source


def test_a_learned_coefficient_that_never_takes_in_a_frame():
    with pytest.raises(CheckpointError, match=r"learned alpha -1000 means a coefficient of 0"):
        effective_coefficient(-1000.0, None, sigmoid=False)


@pytest.mark.parametrize(
    ("learned", "alpha", "through"),
    [
        (None, 0.0, False),
        (None, 1e-50, False),
        (None, 1.1, False),
        (None, -0.1, False),
        (None, math.nan, False),
        (None, math.inf, True),
        (0.25, 0.1, False),
        (0.25, None, True),
    ],
)
def test_a_coefficient_out_of_range_or_against_the_checkpoint_is_refused(learned, alpha, through):
    with pytest.raises(UsageError, match="--alpha"):
        effective_coefficient(learned, alpha, sigmoid=through)
