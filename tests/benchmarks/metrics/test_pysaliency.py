"""Ours against pysaliency, where it defines the same: two modules of it that `make test` fetches."""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from salema.benchmarks.metrics.auc import exact_auc
from salema.runtime.metrics import cc, kl_divergence, nss, sim

CACHE = Path(__file__).parents[3] / ".cache"


@pytest.fixture(scope="module")
def pysaliency():
    """Two of its modules, loaded by file: importing the package takes PyTorch, numba and others."""
    folders = sorted(CACHE.glob("pysaliency-*/pysaliency"))
    assert folders, "pysaliency is not there; make test fetches it"
    with pytest.MonkeyPatch.context() as patch:
        # Its loops run as plain Python, and NumPy 2.4 calls trapz by its new name.
        patch.setitem(sys.modules, "numba", types.SimpleNamespace(jit=lambda **_: lambda function: function))
        if hasattr(np, "trapezoid"):
            patch.setattr(np, "trapz", np.trapezoid, raising=False)
        yield types.SimpleNamespace(**{name: load(folders[-1] / f"{name}.py") for name in ("metrics", "numba_utils")})


def load(path):
    spec = importlib.util.spec_from_file_location(f"pysaliency_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=range(6))
def case(request):
    """A map, a density with 0 in it as SIM's ranges need, and fixations; with ties in every second case."""
    draw = np.random.default_rng(request.param)
    saliency, density = draw.random((2, 23, 31))
    if request.param % 2:
        saliency = np.rint(saliency * 7)
    return saliency - saliency.min(), density - density.min(), draw.random((23, 31)) < 0.05


def test_nss(pysaliency, case):
    saliency, _, fixated = case
    rows, columns = fixated.nonzero()
    assert nss(saliency, fixated) == pytest.approx(pysaliency.metrics.NSS(saliency, columns, rows).mean())


def test_cc_sim_and_kl(pysaliency, case):
    saliency, density, _ = case
    assert cc(saliency, density) == pytest.approx(pysaliency.metrics.CC(saliency, density))
    assert sim(saliency, density) == pytest.approx(pysaliency.metrics.SIM(saliency, density))
    with np.errstate(divide="ignore"):  # it takes the logarithm of 0 on its way
        wanted = pysaliency.metrics.MIT_KLDiv(saliency, density)
    assert kl_divergence(saliency, density) == pytest.approx(wanted)
    assert kl_divergence(saliency, density) > 0.1


def test_auc(pysaliency, case):
    saliency, _, fixated = case
    positives, negatives = saliency[fixated], saliency[~fixated]
    area, _, _ = pysaliency.numba_utils.general_roc_numba(positives, negatives)
    assert exact_auc(positives, negatives) == pytest.approx(area)
    each = pysaliency.numba_utils.general_rocs_per_positive_numba(positives, negatives)
    assert exact_auc(positives, negatives) == pytest.approx(each.mean())
    # Shuffled AUC is the same of others' fixations, as often as they were fixated.
    counts = np.random.default_rng(0).integers(0, 3, saliency.shape)
    others = np.repeat(saliency.ravel(), counts.ravel())
    area, _, _ = pysaliency.numba_utils.general_roc_numba(positives, others)
    assert exact_auc(positives, saliency.ravel(), counts.ravel()) == pytest.approx(area)
