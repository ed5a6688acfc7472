import itertools

import numpy as np
import pytest
import torch
from torch import nn

from salema.export.graph.models import SaliencyStep
from salema.export.graph.rewrite import (
    CROPPED,
    CROPPED_LAST,
    MEAN,
    MEAN_CHANNEL,
    TRANSPOSED,
    fold_mean,
    fold_upsampling,
)
from salema.export.weights.architecture import LAYERS, Architecture
from salema.export.weights.seeded import moving_disc
from salema.runtime.errors import UsageError

FORMS = (CROPPED, CROPPED_LAST, TRANSPOSED)
UPSAMPLINGS = [index for index, layer in enumerate(LAYERS) if layer == "U"]


def pair(inp=3, out=5, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(inp, out, 3, padding=1)).to(torch.float64)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 2), (12, 16)])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_folded_upsampling_is_the_plain_one_to_the_border(form, size, batch):
    layers = pair()
    x = torch.randn(batch, 3, *size, dtype=torch.float64)
    with torch.inference_mode():
        expected = layers(x)
        fold_upsampling(layers, form, ())
        found = layers(x)
    assert next(type(layer).__name__ for layer in layers) == "Identity"
    assert not any(isinstance(layer, nn.Upsample) for layer in layers.modules())
    assert found.shape == expected.shape == (batch, 5, 2 * size[0], 2 * size[1])
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize("form", FORMS)
def test_every_tap_has_its_place(form):
    """One weight at a time: a wrong place can't be made up for by another."""
    for row, column in itertools.product(range(3), range(3)):
        layers = pair(1, 1)
        with torch.inference_mode():
            layers[1].weight.zero_()
            layers[1].weight[0, 0, row, column] = 1
            x = torch.arange(20, dtype=torch.float64).reshape(1, 1, 4, 5)
            expected = layers(x)
            fold_upsampling(layers, form, ())
            torch.testing.assert_close(layers(x), expected, rtol=0, atol=1e-12)


VARIANTS = [
    *(Architecture("salema", (location,)) for location in (0, 30, 36, 37, 38, 43, 44, 50, 51, 55, 56, 57, 61)),
    Architecture("salgan"),
    Architecture("salema", (30,), residual=True),
    Architecture("salema", (30, 54)),
    Architecture("salema", (36, 56)),
    Architecture("salclstm30"),
    Architecture("salclstm30", residual=True),
    Architecture("salclstm56"),
]


def run(step, frames):
    states = [torch.zeros(2, *spec.shape_chw, dtype=torch.float64) for spec in step.state_specs(32, 48)]
    out = []
    for t, frame in enumerate(frames):
        mix = [torch.tensor([1.0 if t == 0 else 0.1, 1.0], dtype=torch.float64)]
        mix = mix if step.architecture.kind == "salema" else []
        batch = torch.from_numpy(np.stack([frame, frame[::-1, ::-1]]))
        with torch.inference_mode():
            saliency, *states = step(batch, *states, *mix)
        out += [saliency, *states]
    return out


@pytest.mark.parametrize(
    "names", [(CROPPED,), (CROPPED_LAST,), (TRANSPOSED,), (MEAN,), (TRANSPOSED, MEAN)], ids="+".join
)
@pytest.mark.parametrize("architecture", VARIANTS, ids=lambda value: value.name)
def test_every_variant_stays_what_it_is(narrow, architecture, names):
    """In float64, over three frames of two streams: maps and states to 1e-9 of their size."""
    weights = narrow[architecture.kind if architecture.kind != "salgan" else "salema"]
    frames = moving_disc(3, 32, 48)
    plain, rewritten = (SaliencyStep(architecture, weights, torch.float64, chosen).eval() for chosen in ((), names))
    for expected, found in zip(run(plain, frames), run(rewritten, frames), strict=True):
        assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()
    assert rewritten.salgan[0].in_channels == (4 if MEAN in names else 3)
    if names == (MEAN,):
        return
    left = [index for index, layer in enumerate(rewritten.salgan) if isinstance(layer, nn.Upsample)]
    end = len(rewritten.salgan)
    kept = {place for location in architecture.ema_locs for place in (location, location + 1)}
    assert left == [index for index in UPSAMPLINGS if index < end and (index + 1 in kept or index + 1 == end)]


def test_an_unknown_rewrite_is_refused():
    with pytest.raises(UsageError, match=f"rewrite faster: not one of {CROPPED}"):
        fold_upsampling(pair(), "faster", ())


def test_the_mean_is_exact_to_the_border_where_a_bias_would_not_be():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, padding=1).to(torch.float64)
    mean = torch.tensor([103.939, 116.779, 123.68], dtype=torch.float64)
    pixels = torch.randint(0, 256, (2, 3, 6, 7)).to(torch.float64)
    with torch.inference_mode():
        expected = conv(pixels - mean.view(1, 3, 1, 1))
        folded = fold_mean(conv, mean)
        found = folded(nn.functional.pad(pixels, (0, 0, 0, 0, 0, 1), value=MEAN_CHANNEL))
        in_bias = conv(pixels) - (conv.weight * mean.view(1, 3, 1, 1)).sum((1, 2, 3)).view(1, -1, 1, 1)
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()
    assert (in_bias - expected)[..., 1:-1, 1:-1].abs().max() <= 1e-9 * expected.abs().max()
    assert (in_bias - expected).abs().max() > 1
