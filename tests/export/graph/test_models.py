import numpy as np
import pytest
import torch
from reference import salclstm, salema

from salema.export.graph.models import SaliencyStep, ema
from salema.export.weights.architecture import CONVS, LAYERS, Architecture
from salema.export.weights.seeded import moving_disc, seeded_state_dict
from salema.runtime.errors import UsageError

SIZE_HW = (32, 48)
SMALL_HW = (16, 32)
A = 0.1
SIGMOID_01 = 1 / (1 + np.exp(-0.1))  # what the published code makes of 0.1


def run(step, frames, a=A):
    """Maps `(T, H, W)` and the last states of one stream."""
    states = [torch.zeros(1, *spec.shape_chw) for spec in step.state_specs(*frames.shape[1:3])]
    maps = []
    for t, frame in enumerate(frames):
        mix = [torch.tensor([1.0 if t == 0 else a])] if step.architecture.kind == "salema" else []
        with torch.inference_mode():
            saliency, *states = step(torch.from_numpy(frame[None]), *states, *mix)
        assert saliency.shape == (1, 1, *frames.shape[1:3])
        maps.append(saliency[0, 0].numpy())
    return np.stack(maps), [state.numpy() for state in states]


NARROW = {key: torch.from_numpy(array) for key, array in seeded_state_dict("salema", 16).items()}
RELUS = [location for location in range(61) if LAYERS[location] == "R"]
KEEPING = [location for location in CONVS if len({*NARROW[f"salgan.{location}.weight"].shape[:2]}) == 1]
SINGLE = [((location,), False) for location in range(62)]
RESIDUAL = [((location,), True) for location in sorted(RELUS + KEEPING)]
DOUBLE = [(pair, False) for pair in ((0, 61), (2, 7), (7, 8), (7, 9), (7, 54), (8, 10), (28, 29), (28, 30), (30, 54))]


@pytest.mark.parametrize(
    ("locations", "residual", "plain"),
    [(*case, plain) for case in (*SINGLE, *RESIDUAL, *DOUBLE) for plain in (False, True)[: 1 + (min(case[0]) < 30)]],
)
def test_an_ema_at_every_location_is_the_published_recurrence(locations, residual, plain):
    frames = moving_disc(3, *SMALL_HW)
    architecture = Architecture("salema", locations, residual, plain_recurrence=plain)
    maps, states = run(SaliencyStep(architecture, NARROW, torch.float64).eval(), frames)
    a = float(np.float32(A))
    expected_maps, expected_states = salema(NARROW, frames, a, locations, residual, in_place=not plain)
    np.testing.assert_allclose(maps, expected_maps, atol=1e-6)
    for state, expected in zip(states, expected_states, strict=True):
        assert state.shape == expected.shape
        np.testing.assert_allclose(state, expected, atol=1e-5)


def test_the_plain_rule_is_as_far_from_the_published_maps_as_the_readme_says(golden, seeded_arrays, disc):
    weights = {key: torch.from_numpy(array) for key, array in seeded_arrays("salema").items()}
    step = SaliencyStep(Architecture("salema", (7,), plain_recurrence=True), weights).eval()
    maps, _ = run(step, disc, SIGMOID_01)
    assert round(float(np.abs(maps - golden["salema7_logit0.1"]).max()), 3) == 0.018


def test_the_two_rules_differ_where_a_relu_of_the_encoder_overwrites_and_nowhere_else():
    frames = moving_disc(2, *SMALL_HW)
    differ = set()
    for locations, residual in (*SINGLE, *RESIDUAL):
        both = [salema(NARROW, frames, A, locations, residual, in_place=rule) for rule in (True, False)]
        if not np.array_equal(both[0][0], both[1][0]) or not np.array_equal(both[0][1][0], both[1][1][0]):
            differ.add((*locations, residual))
    convolutions = {(location, False) for location in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}
    relus = {(location, True) for location in (1, 3, 6, 8, 11, 13, 15, 18, 20, 22, 25, 27, 29)}
    assert differ == convolutions | relus


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (Architecture("salgan"), lambda w, f: salema(w["salema"], f, A)),
        (Architecture("salema", (30,), residual=True), lambda w, f: salema(w["salema"], f, A, (30,), residual=True)),
        (Architecture("salema", (1,), residual=True), lambda w, f: salema(w["salema"], f, A, (1,), residual=True)),
        (Architecture("salema", (30, 54)), lambda w, f: salema(w["salema"], f, A, (30, 54))),
        (Architecture("salema", (0, 61)), lambda w, f: salema(w["salema"], f, A, (0, 61))),
        (Architecture("salclstm30"), lambda w, f: salclstm(w["salclstm30"], f, 30)),
        (Architecture("salclstm30", residual=True), lambda w, f: salclstm(w["salclstm30"], f, 30, residual=True)),
        (Architecture("salclstm56"), lambda w, f: salclstm(w["salclstm56"], f, 56)),
    ],
    ids=lambda value: value.name if isinstance(value, Architecture) else "",
)
def test_every_variant_is_its_plain_recurrence(narrow, architecture, expected):
    frames = moving_disc(4, *SIZE_HW)
    weights = narrow["salema" if architecture.kind == "salgan" else architecture.kind]
    maps, states = run(SaliencyStep(architecture, weights, torch.float32).eval(), frames)
    expected_maps, expected_states = expected(narrow, frames)
    np.testing.assert_allclose(maps, expected_maps, atol=1e-5)
    for state, reference in zip(states, expected_states, strict=True):
        np.testing.assert_allclose(state, reference, atol=1e-5 * max(1, np.abs(reference).max()))


@pytest.mark.parametrize(
    ("case", "kind", "architecture", "a"),
    [
        ("salgan", "salgan", Architecture("salgan"), None),
        ("salema30_direct_a0.1", "salema", Architecture("salema", (30,)), 0.1),
        ("salema30_learned0.25", "salema", Architecture("salema", (30,)), 1 / (1 + np.exp(-0.25))),
        ("salclstm30", "salclstm30", Architecture("salclstm30"), None),
        ("salema7_logit0.1", "salema", Architecture("salema", (7,)), SIGMOID_01),
        ("salema_7_54_a0.3", "salema", Architecture("salema", (7, 54)), 0.3),
        ("salema1r_logit0.1", "salema", Architecture("salema", (1,), residual=True), SIGMOID_01),
        ("salema29r_logit0.1", "salema", Architecture("salema", (29,), residual=True), SIGMOID_01),
    ],
)
def test_the_published_code_gives_the_same_maps(golden, seeded_arrays, disc, case, kind, architecture, a):
    weights = {key: torch.from_numpy(array) for key, array in seeded_arrays(kind).items()}
    maps, states = run(SaliencyStep(architecture, weights).eval(), disc, a)
    np.testing.assert_allclose(maps, golden[case], atol=1e-5)
    for index, state in enumerate(states):
        if f"{case}/state{index}_sum" not in golden:
            continue
        sums = [state.sum(dtype=np.float64), np.abs(state).sum(dtype=np.float64)]
        np.testing.assert_allclose(sums, golden[f"{case}/state{index}_sum"], rtol=1e-5, atol=0.1)


@pytest.mark.parametrize("location", [4, 10, 36, 44, 60, 61])
def test_a_residual_that_does_not_fit_is_refused(narrow, location):
    with pytest.raises(UsageError, match=f"--residual --ema-loc {location}"):
        SaliencyStep(Architecture("salema", (location,), residual=True), narrow["salema"])


def test_ema_selects_at_one_and_averages_below_it():
    fresh = torch.full((3, 2, 1, 1), 5.0)
    state = torch.tensor([float("nan"), 1.0, 1.0]).view(3, 1, 1, 1).expand(3, 2, 1, 1)
    after = ema(fresh, state, torch.tensor([1.0, 0.25, 1.0]))
    assert after.flatten().tolist() == [5.0, 5.0, 2.0, 2.0, 5.0, 5.0]


def test_states_and_maps_stay_float32_in_fp16(narrow):
    step = SaliencyStep(Architecture("salema", (30,)), narrow["salema"], torch.float16).eval()
    assert all(parameter.dtype == torch.float16 for parameter in step.parameters())
    frame = torch.from_numpy(moving_disc(1, *SIZE_HW))
    state = torch.zeros(1, *step.state_specs(*SIZE_HW)[0].shape_chw)
    saliency, after = step(frame, state, torch.ones(1))
    assert (saliency.dtype, after.dtype) == (torch.float32, torch.float32)
