import hashlib

import numpy as np
import pytest
import torch

from salema.export.weights.architecture import CONVS, Architecture
from salema.export.weights.checkpoint_files import save_safetensors
from salema.export.weights.checkpoints import load_checkpoint
from salema.runtime.errors import CheckpointError, UsageError


def assert_same(checkpoint, expected):
    assert set(checkpoint.weights) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(checkpoint.weights[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["salema", "salclstm30", "salclstm56"])
@pytest.mark.parametrize("data_parallel", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_published_layout(tmp_path, narrow, kind, data_parallel, legacy):
    state = {f"module.{key}" if data_parallel else key: value for key, value in narrow[kind].items()}
    path = tmp_path / "weights.pt"
    torch.save(
        {"epoch": 8, "state_dict": state, "optimizer": {"lr": 1e-7}}, path, _use_new_zipfile_serialization=not legacy
    )
    checkpoint = load_checkpoint(str(path))
    assert_same(checkpoint, narrow[kind])
    assert (checkpoint.kind, checkpoint.learned_alpha, checkpoint.hint) == (kind, None, None)
    assert checkpoint.trained
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_learned_alpha(tmp_path, narrow, prefix):
    path = tmp_path / "SalEMA30.pt"
    state = {f"{prefix}{key}": value for key, value in narrow["salema"].items()}
    torch.save({"epoch": 8, "state_dict": state | {f"{prefix}alpha": torch.tensor([0.25])}, "optimizer": {}}, path)
    checkpoint = load_checkpoint(str(path))
    assert checkpoint.learned_alpha == 0.25
    assert_same(checkpoint, narrow["salema"])
    assert checkpoint.hint.architecture == Architecture("salema", (30,))


@pytest.mark.parametrize("wrapped", [False, True])
def test_bare_inner_keys_are_salgan(tmp_path, narrow, wrapped):
    bare = {key.removeprefix("salgan."): value for key, value in narrow["salema"].items()}
    path = tmp_path / "generator.pt"
    torch.save({"state_dict": bare} if wrapped else bare, path)
    checkpoint = load_checkpoint(str(path))
    assert_same(checkpoint, narrow["salema"])
    assert checkpoint.hint.architecture == Architecture("salgan")


def test_keys_that_are_there_twice(tmp_path, narrow):
    path = tmp_path / "both.pt"
    torch.save(narrow["salema"] | {"0.bias": torch.zeros(4)}, path)
    with pytest.raises(CheckpointError, match="some keys twice, with and without 'module.' or 'salgan.'"):
        load_checkpoint(str(path))


def true_convolution(x, weight):
    """Sums x[c, i-u, j-v] * w[o, c, u, v] as Lasagne's default does; x (c, h, w), 3x3 kernel centred at (1, 1)."""
    out = np.zeros((len(weight), *x.shape[1:]))
    for u in (-1, 0, 1):
        for v in (-1, 0, 1):
            moved = np.roll(x, (u, v), (1, 2))
            out += np.einsum("oc,cij->oij", weight[:, :, u + 1, v + 1], moved)
    return out


def test_lasagne_weights_convolve_like_the_original(tmp_path, narrow):
    """Lasagne's default is a true convolution; SalGAN's encoder was built without its flip, its decoder with."""
    arrays = []
    for index in CONVS:
        arrays += [narrow["salema"][f"salgan.{index}.{part}"].numpy() for part in ("weight", "bias")]
    path = tmp_path / "gen_modelWeights0090.npz"
    np.savez(path, *arrays)
    checkpoint = load_checkpoint(str(path))
    assert checkpoint.hint.architecture == Architecture("salgan")
    for index in CONVS:
        original = narrow["salema"][f"salgan.{index}.weight"]
        loaded = checkpoint.weights[f"salgan.{index}.weight"]
        torch.testing.assert_close(checkpoint.weights[f"salgan.{index}.bias"], narrow["salema"][f"salgan.{index}.bias"])
        if index < 30:
            torch.testing.assert_close(loaded, original, rtol=0, atol=0)
        elif index < 60:
            x = np.zeros((original.shape[1], 7, 7))
            x[:, 2:5, 2:5] = np.random.default_rng(index).standard_normal((original.shape[1], 3, 3))
            correlated = torch.nn.functional.conv2d(torch.from_numpy(x)[None], loaded.double(), padding=1)[0]
            np.testing.assert_allclose(correlated, true_convolution(x, original.numpy()), atol=1e-6)


def test_safetensors_carry_their_architecture(tmp_path, narrow):
    source = tmp_path / "weights.pt"
    torch.save({"state_dict": narrow["salema"] | {"alpha": torch.tensor([0.25])}}, source)
    checkpoint = load_checkpoint(str(source))
    architecture = Architecture("salema", (7,), residual=True)
    path = tmp_path / "SalBCE.safetensors"
    for trained in (True, False):
        save_safetensors(path, checkpoint.weights, checkpoint.learned_alpha, architecture, trained=trained)
        again = load_checkpoint(str(path))
        assert_same(again, narrow["salema"])
        assert again.learned_alpha == 0.25
        assert again.hint.architecture == architecture
        assert again.trained == trained


def test_metadata_that_contradicts_the_keys(tmp_path, narrow):
    path = tmp_path / "ours.safetensors"
    save_safetensors(path, narrow["salema"], None, Architecture("salclstm30"), trained=True)
    with pytest.raises(CheckpointError, match="metadata says SalCLSTM30, its keys salema"):
        load_checkpoint(str(path))


def test_a_learned_alpha_outweighs_a_name_that_says_salgan(tmp_path, narrow):
    path = tmp_path / "SalBCE.pt"
    torch.save(narrow["salema"] | {"alpha": torch.tensor([0.25])}, path)
    assert load_checkpoint(str(path)).hint is None


def test_half_precision_checkpoints_become_float32(tmp_path, narrow):
    path = tmp_path / "half.pt"
    torch.save({key: value.half() for key, value in narrow["salema"].items()}, path)
    checkpoint = load_checkpoint(str(path))
    assert {value.dtype for value in checkpoint.weights.values()} == {torch.float32}


def test_seeded_weights_are_the_same_each_time():
    first, second = load_checkpoint("seeded:16"), load_checkpoint("seeded:16")
    assert first.sha256 == second.sha256
    assert not first.trained
    assert load_checkpoint("seeded:8").sha256 != first.sha256
    with pytest.raises(UsageError, match="seeded:0"):
        load_checkpoint("seeded:0")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: w.pop("salgan.30.weight"), "missing keys salgan.30.weight; unexpected keys none"),
        (lambda w: w.update(extra=torch.zeros(1)), "unexpected keys extra"),
        (lambda w: w.update({"salgan.30.bias": torch.zeros(3)}), r"salgan.30.bias has shape \(3,\)"),
        (lambda w: w.update({"salgan.0.weight": torch.zeros(4, 4, 3, 3)}), r"salgan.0.weight has shape \(4, 4, 3, 3\)"),
        (lambda w: w.update({"salgan.60.weight": torch.zeros(1, 4, 3, 3)}), r"\(1, 4, 1, 1\) expected"),
        (lambda w: w["salgan.5.bias"].fill_(float("nan")), "salgan.5.bias: NaN or infinity"),
        (lambda w: w.update(alpha=torch.zeros(2)), r"alpha has shape \(2,\)"),
        (lambda w: w.update(epoch=8), "epoch: not a plain floating tensor"),
        (lambda w: w.update({"salgan.0.weight": torch.tensor(1.0)}), r"salgan.0.weight has shape \(\)"),
        (lambda w: w.update({"salgan.5.weight": torch.zeros(0, 4, 3, 3)}), r"salgan.5.weight has shape \(0, 4, 3, 3\)"),
        (
            lambda w: w.update({"salgan.5.bias": torch.ones(8, dtype=torch.int64)}),
            "salgan.5.bias: not a plain floating",
        ),
        (lambda w: w.update({"salgan.5.bias": torch.ones(8).to_sparse()}), "salgan.5.bias: not a plain floating"),
        (lambda w: w.update({"salgan.5.bias": torch.ones(8, device="meta")}), "salgan.5.bias: not a plain floating"),
        (lambda w: w.update({"salgan.5.bias": torch.ones(1).expand(10**12)}), "salgan.5.bias: not a plain floating"),
        (lambda w: w.update({"module.salgan.5.bias": torch.ones(8)}), "holds some keys twice"),
        (
            lambda w: w.update({"Gates.weight": torch.zeros(4, 4, 3, 3)}),
            "does not fit salclstm30: missing keys Gates.bias",
        ),
    ],
)
def test_weights_that_do_not_fit(tmp_path, narrow, change, sentence):
    changed = {key: value.clone() for key, value in narrow["salema"].items()}
    change(changed)
    path = tmp_path / "weights.pt"
    torch.save(changed, path)
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(str(path))


@pytest.mark.parametrize(("kind", "key"), [("salclstm30", "Gates.weight"), ("salclstm56", "Gates.bias")])
def test_gates_that_do_not_fit(tmp_path, narrow, kind, key):
    path = tmp_path / "weights.pt"
    torch.save(narrow[kind] | {key: narrow[kind][key][:-4]}, path)
    with pytest.raises(CheckpointError, match=f"{key} has shape"):
        load_checkpoint(str(path))


def test_an_lstm_with_a_learned_alpha_is_refused(tmp_path, narrow):
    path = tmp_path / "weights.pt"
    torch.save(narrow["salclstm30"] | {"alpha": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="unexpected key alpha"):
        load_checkpoint(str(path))


def test_missing_files_and_other_content(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(str(tmp_path / "absent.pt"))
    with pytest.raises(CheckpointError, match="not a file; give a checkpoint"):
        load_checkpoint(str(tmp_path))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds no state_dict but a list"):
        load_checkpoint(str(tmp_path / "list.pt"))
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(CheckpointError, match="arr_0 to arr_53 expected"):
        load_checkpoint(str(tmp_path / "other.npz"))
