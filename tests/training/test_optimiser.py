import pytest
import torch

from salema.export.weights.architecture import Architecture
from salema.export.weights.checkpoints import load_checkpoint
from salema.training.network import ClipNetwork
from salema.training.optimiser import averaging, forget_gradients, frozen_at, make_optimiser, rate_at, set_rate
from salema.training.recipes import RECIPES, Recipe, choose_recipe


def network(kind="salema", locs=(30,), alpha=0.25):
    return ClipNetwork(Architecture(kind, locs), load_checkpoint("seeded:16", kind).weights, alpha, 0.1, 0.0)


def test_the_papers_adam_decays_the_generator_and_not_alpha():
    own = network()
    optimiser = make_optimiser(own, RECIPES["paper"])
    generator, alpha = optimiser.param_groups
    assert type(optimiser) is torch.optim.Adam
    assert (generator["lr"], generator["weight_decay"], len(generator["params"])) == (1e-6, 1e-4, 54)
    assert (alpha["lr"], alpha["weight_decay"]) == (0.1, 0)
    assert alpha["params"][0] is own.alpha
    assert generator["betas"] == (0.9, 0.999)


def test_gates_have_no_decay():
    groups = make_optimiser(network("salclstm30", (), None), RECIPES["paper"]).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(1e-4, 54), (0, 2)]


def test_the_default_decays_no_biases():
    optimiser = make_optimiser(network(), RECIPES["default"])
    assert type(optimiser) is torch.optim.AdamW
    assert [len(group["params"]) for group in optimiser.param_groups] == [27, 27, 1]


def test_the_rate_rises_and_falls():
    recipe = choose_recipe("default", Recipe(warmup=4), "other")
    shares = [rate_at(recipe, step, 100) for step in range(100)]
    assert shares[0] == pytest.approx(0.25, rel=1e-3)
    assert max(shares) == shares[3]
    assert shares[50] == pytest.approx(0.505, rel=1e-2)
    assert shares[99] == pytest.approx(0.01, abs=1e-3)
    assert {rate_at(RECIPES["paper"], step, 100) for step in range(100)} == {1.0}


def test_each_group_keeps_its_own_rate():
    optimiser = make_optimiser(network(), RECIPES["default"])
    set_rate(optimiser, 0.5)
    set_rate(optimiser, 0.5)
    assert [group["lr"] for group in optimiser.param_groups] == [5e-4, 5e-4, 1e-2]


def test_a_frozen_layer_does_not_move_until_its_epoch():
    own = network("salclstm30", (), None)
    recipe = choose_recipe("paper", Recipe(lr=1e-2), "DHF1K")
    optimiser = make_optimiser(own, recipe)
    before = {key: tensor.detach().clone() for key, tensor in own.step.named_parameters()}
    frames = torch.zeros(1, 1, 32, 32, 3, dtype=torch.uint8)
    maps, _ = own(frames, None, torch.zeros(1, dtype=torch.int64))
    maps.sum().backward()
    forget_gradients(frozen_at(own, recipe, epoch=2))
    optimiser.step()
    moved = {key for key, tensor in own.step.named_parameters() if not torch.equal(tensor, before[key])}
    assert "Gates.weight" in moved
    assert "salgan.60.weight" in moved
    assert not any(key.startswith("salgan.") and int(key.split(".")[1]) < 57 for key in moved)
    assert frozen_at(own, recipe, epoch=5) == []
    assert frozen_at(network(), recipe, epoch=1) == []


def test_an_average_follows_at_once_and_then_slowly():
    average = averaging(0.9)
    zero, one = torch.zeros(1), torch.ones(1)
    assert average(zero, one, 1).item() == pytest.approx(1 - 2 / 11)
    assert average(zero, one, 10_000).item() == pytest.approx(0.1)
