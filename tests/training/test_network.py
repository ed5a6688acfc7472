"""A whole clip, forward and backward, against the recurrences written out plainly."""

import numpy as np
import pytest
import torch
from reference import layer, prepared

from salema.export.weights.architecture import Architecture
from salema.export.weights.checkpoints import load_checkpoint
from salema.export.weights.seeded import moving_disc
from salema.training.network import ClipNetwork

HEIGHT, WIDTH, COUNT = 16, 32, 3
EMAS = {
    "30": Architecture("salema", (30,)),
    "30R": Architecture("salema", (30,), residual=True),
    "7, a ReLU in place behind it": Architecture("salema", (7,)),
    "29R, a ReLU in place": Architecture("salema", (29,), residual=True),
    "7 and 54": Architecture("salema", (7, 54)),
    "61, the map itself": Architecture("salema", (61,)),
}


@pytest.fixture(scope="module")
def frames():
    return moving_disc(COUNT, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def weights():
    return load_checkpoint("seeded:16").weights


def clip(frames):
    return torch.from_numpy(frames)[None]


def no_seeds(count=1):
    return torch.zeros(count, dtype=torch.int64)


def plain_maps(weights, frames, coefficient, architecture):
    """Maps of a SalEMA, in float64 and with gradients; ReLUs that work in place are written as what they leave."""
    states, maps = {}, []
    for time, frame in enumerate(frames):
        x, index = prepared(frame), 0
        while index < 62:
            entered, x = x, layer(weights, index, x, in_place=False)
            if index in architecture.ema_locs:
                blended = x if time == 0 else coefficient * x + (1 - coefficient) * states[index]
                in_place = index < 30 and not architecture.residual and index in {0, 2, 5, 7, 10, 12}
                states[index] = blended.clamp(min=0) if in_place else blended
                added = x if index < 30 and architecture.residual else entered  # 29 is a ReLU of the encoder
                x = states[index] + added if architecture.residual else states[index]
            index += 1
        maps.append(x[0, 0])
    return torch.stack(maps)


@pytest.mark.parametrize("name", EMAS)
def test_maps_and_gradients_of_a_clip_are_the_plain_recurrences(weights, frames, name):
    architecture = EMAS[name]
    network = ClipNetwork(architecture, weights, alpha=-0.5, coefficient=0.1, dropout=0.0)
    maps, _ = network(clip(frames), None, no_seeds())
    plain = {key: value.double().requires_grad_() for key, value in weights.items()}
    alpha = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
    expected = plain_maps(plain, frames, alpha.sigmoid(), architecture)
    assert torch.allclose(maps[0].double(), expected, atol=1e-5)
    aim = torch.linspace(-1, 1, HEIGHT * WIDTH, dtype=torch.float64).reshape(HEIGHT, WIDTH)  # each pixel its own share
    (expected * aim).sum().backward()
    (maps[0].double() * aim).sum().backward()
    assert network.alpha.grad.item() == pytest.approx(alpha.grad.item(), rel=1e-3)
    for key, tensor in network.step.named_parameters():
        scale = plain[key].grad.abs().max()
        assert (tensor.grad.double() - plain[key].grad).abs().max() <= 1e-3 * scale, key


@pytest.mark.parametrize("name", ["30", "7 and 54"])
def test_a_video_in_two_clips_is_the_video_in_one(weights, frames, name):
    network = ClipNetwork(EMAS[name], weights, None, 0.3, 0.0).eval()
    whole, _ = network(clip(frames), None, no_seeds())
    first, states = network(clip(frames[:1]), None, no_seeds())
    last, _ = network(clip(frames[1:]), states, no_seeds())
    assert torch.equal(torch.cat([first, last], 1), whole)


@pytest.mark.parametrize("kind", ["salclstm30", "salclstm56", "salgan"])
def test_other_families_learn_too(frames, kind):
    weights = load_checkpoint("seeded:16", kind).weights
    network = ClipNetwork(Architecture(kind), weights, None, 0.1, 0.0)
    maps, states = network(clip(frames), None, no_seeds())
    maps.sum().backward()
    assert maps.shape == (1, COUNT, HEIGHT, WIDTH)
    assert len(states) == (0 if kind == "salgan" else 2)
    assert all(tensor.grad.abs().sum() > 0 for key, tensor in network.step.named_parameters() if "weight" in key)


def test_dropout_is_for_training_alone_and_each_clips_own(weights, frames):
    network = ClipNetwork(EMAS["30"], weights, None, 0.1, dropout=0.5)
    both = torch.from_numpy(np.stack([frames, frames]))
    seeds = torch.tensor([3, 4])
    dropped, _ = network(both, None, seeds)
    again, _ = network(both[:1], None, seeds[1:])
    assert torch.allclose(dropped[1], again[0], atol=1e-6)
    assert not torch.allclose(dropped[0], dropped[1], atol=1e-4)
    network.eval()
    kept, _ = network(both, None, seeds)
    assert torch.allclose(kept[0], kept[1], atol=1e-6)


def test_half_of_the_channels_are_dropped_and_the_others_doubled(weights):
    step = ClipNetwork(EMAS["30"], weights, None, 0.1, dropout=0.5).step
    with step.seeded(torch.tensor([1])):
        entered = step.entering(torch.ones(1, 4000, 1, 1)).flatten()
    assert sorted(set(entered.tolist())) == [0.0, 2.0]
    assert entered.mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("alpha", "coefficient"), [(0.4, 0.1), (None, 0.25)])
def test_the_published_tensors_hold_the_coefficient(weights, alpha, coefficient):
    network = ClipNetwork(EMAS["30"], weights, alpha, coefficient, 0.0)
    tensors = network.published()
    assert set(tensors) == {*weights, "alpha"}
    assert torch.equal(tensors["salgan.0.weight"], weights["salgan.0.weight"])
    assert tensors["alpha"].sigmoid().item() == pytest.approx(network.coefficient.item(), abs=1e-6)
