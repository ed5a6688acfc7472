import numpy as np
import pytest
import torch

from salema.runtime.metrics import cc, kl_divergence, nss
from salema.training.losses import frame_losses, weighted
from salema.training.recipes import RECIPES

DEFAULT = RECIPES["default"]


@pytest.fixture
def frame():
    rng = np.random.default_rng(5)
    saliency, density = (rng.random((12, 16)).astype(np.float32) for _ in range(2))
    fixations = (rng.random((12, 16)) < 0.1).astype(np.float32)
    return saliency, density, fixations


def losses_of(*maps, recipe=DEFAULT):
    return {
        name: float(loss)
        for name, loss in frame_losses(*(torch.from_numpy(m)[None, None] for m in maps), recipe).items()
    }


def test_each_term_is_the_metric_that_it_is_named_after(frame):
    saliency, density, fixations = frame
    losses = losses_of(*frame)
    assert losses["cc"] == pytest.approx(1 - cc(saliency, density), abs=1e-5)
    assert losses["kld"] == pytest.approx(kl_divergence(saliency, density), rel=1e-4)
    assert losses["nss"] == pytest.approx(-nss(saliency, fixations), abs=1e-5)
    entropy = -(density * np.log(saliency) + (1 - density) * np.log(1 - saliency)).mean()
    assert losses["bce"] == pytest.approx(entropy, abs=1e-5)


def test_fixations_at_one_place_count_each(frame):
    saliency, density, fixations = frame
    row, column = np.argwhere(fixations)[0]
    fixations[row, column] = 3
    places = np.repeat(np.flatnonzero(fixations), fixations[fixations > 0].astype(int))
    standardised = (saliency - saliency.mean()) / saliency.std()
    assert losses_of(saliency, density, fixations)["nss"] == pytest.approx(
        -standardised.ravel()[places].mean(), abs=1e-5
    )


def test_the_papers_loss_is_the_cross_entropy_alone(frame):
    losses = losses_of(*frame, recipe=RECIPES["paper"])
    assert list(losses) == ["bce"]
    assert float(weighted({"bce": torch.tensor(2.0)}, RECIPES["paper"])) == 2.0


def test_terms_are_added_by_their_weights():
    terms = {name: torch.tensor(value) for name, value in {"bce": 1.0, "kld": 2.0, "cc": 3.0, "nss": -4.0}.items()}
    expected = DEFAULT.bce * 1 + DEFAULT.kld * 2 + DEFAULT.cc * 3 - DEFAULT.nss * 4
    assert float(weighted(terms, DEFAULT)) == pytest.approx(expected)


def test_a_frame_of_which_nothing_is_known_gives_finite_gradients():
    maps = torch.full((1, 1, 8, 8), 0.5, requires_grad=True)
    blank = torch.zeros(1, 1, 8, 8)
    sum(loss.sum() for loss in frame_losses(maps, blank, blank, DEFAULT).values()).backward()
    assert maps.grad.isfinite().all()
