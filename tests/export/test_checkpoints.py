import hashlib
import http.server
import os
import threading
from functools import partial

import numpy as np
import pytest
import torch

from salema.export.architecture import CONVS, Architecture
from salema.export.checkpoint_files import save_safetensors
from salema.export.checkpoints import load_checkpoint
from salema.export.seeded import seeded_state_dict
from salema.runtime.errors import CheckpointError, UsageError


@pytest.fixture(scope="module")
def weights():
    return {
        kind: {key: torch.from_numpy(array) for key, array in seeded_state_dict(kind, 16).items()}
        for kind in ("salema", "salclstm30", "salclstm56")
    }


def assert_same(checkpoint, expected):
    assert set(checkpoint.weights) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(checkpoint.weights[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["salema", "salclstm30", "salclstm56"])
@pytest.mark.parametrize("data_parallel", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_published_layout(tmp_path, weights, kind, data_parallel, legacy):
    state = {f"module.{key}" if data_parallel else key: value for key, value in weights[kind].items()}
    path = tmp_path / "weights.pt"
    torch.save(
        {"epoch": 8, "state_dict": state, "optimizer": {"lr": 1e-7}}, path, _use_new_zipfile_serialization=not legacy
    )
    checkpoint = load_checkpoint(str(path))
    assert_same(checkpoint, weights[kind])
    assert (checkpoint.kind, checkpoint.learned_alpha, checkpoint.hint) == (kind, None, None)
    assert checkpoint.trained
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_learned_alpha(tmp_path, weights, prefix):
    path = tmp_path / "SalEMA30.pt"
    state = {f"{prefix}{key}": value for key, value in weights["salema"].items()}
    torch.save({"epoch": 8, "state_dict": state | {f"{prefix}alpha": torch.tensor([0.25])}, "optimizer": {}}, path)
    checkpoint = load_checkpoint(str(path))
    assert checkpoint.learned_alpha == 0.25
    assert_same(checkpoint, weights["salema"])
    assert checkpoint.hint.architecture == Architecture("salema", (30,))


@pytest.mark.parametrize("wrapped", [False, True])
def test_bare_inner_keys_are_salgan(tmp_path, weights, wrapped):
    bare = {key.removeprefix("salgan."): value for key, value in weights["salema"].items()}
    path = tmp_path / "generator.pt"
    torch.save({"state_dict": bare} if wrapped else bare, path)
    checkpoint = load_checkpoint(str(path))
    assert_same(checkpoint, weights["salema"])
    assert checkpoint.hint.architecture == Architecture("salgan")


def true_convolution(x, weight):
    """Sums x[c, i-u, j-v] * w[o, c, u, v] as Lasagne's default does; x (c, h, w), 3x3 kernel centred at (1, 1)."""
    out = np.zeros((len(weight), *x.shape[1:]))
    for u in (-1, 0, 1):
        for v in (-1, 0, 1):
            moved = np.roll(x, (u, v), (1, 2))
            out += np.einsum("oc,cij->oij", weight[:, :, u + 1, v + 1], moved)
    return out


def test_lasagne_weights_convolve_like_the_original(tmp_path, weights):
    """Lasagne's default is a true convolution; SalGAN's encoder was built without its flip, its decoder with."""
    arrays = []
    for index in CONVS:
        arrays += [weights["salema"][f"salgan.{index}.{part}"].numpy() for part in ("weight", "bias")]
    path = tmp_path / "gen_modelWeights0090.npz"
    np.savez(path, *arrays)
    checkpoint = load_checkpoint(str(path))
    assert checkpoint.hint.architecture == Architecture("salgan")
    for index in CONVS:
        original = weights["salema"][f"salgan.{index}.weight"]
        loaded = checkpoint.weights[f"salgan.{index}.weight"]
        torch.testing.assert_close(
            checkpoint.weights[f"salgan.{index}.bias"], weights["salema"][f"salgan.{index}.bias"]
        )
        if index < 30:
            torch.testing.assert_close(loaded, original, rtol=0, atol=0)
        elif index < 60:
            x = np.zeros((original.shape[1], 7, 7))
            x[:, 2:5, 2:5] = np.random.default_rng(index).standard_normal((original.shape[1], 3, 3))
            correlated = torch.nn.functional.conv2d(torch.from_numpy(x)[None], loaded.double(), padding=1)[0]
            np.testing.assert_allclose(correlated, true_convolution(x, original.numpy()), atol=1e-6)


def test_safetensors_carry_their_architecture(tmp_path, weights):
    source = tmp_path / "weights.pt"
    torch.save({"state_dict": weights["salema"] | {"alpha": torch.tensor([0.25])}}, source)
    checkpoint = load_checkpoint(str(source))
    architecture = Architecture("salema", (7,), residual=True)
    path = tmp_path / "SalBCE.safetensors"
    for trained in (True, False):
        save_safetensors(path, checkpoint.weights, checkpoint.learned_alpha, architecture, trained=trained)
        again = load_checkpoint(str(path))
        assert_same(again, weights["salema"])
        assert again.learned_alpha == 0.25
        assert again.hint.architecture == architecture
        assert again.trained == trained


def test_metadata_that_contradicts_the_keys(tmp_path, weights):
    path = tmp_path / "ours.safetensors"
    save_safetensors(path, weights["salema"], None, Architecture("salclstm30"), trained=True)
    with pytest.raises(CheckpointError, match="metadata says SalCLSTM30, its keys salema"):
        load_checkpoint(str(path))


def test_a_learned_alpha_outweighs_a_name_that_says_salgan(tmp_path, weights):
    path = tmp_path / "SalBCE.pt"
    torch.save(weights["salema"] | {"alpha": torch.tensor([0.25])}, path)
    assert load_checkpoint(str(path)).hint is None


MUTATIONS = 150


@pytest.mark.parametrize("form", ["zip", "legacy", "npz", "npz compressed", "safetensors"])
def test_damage_anywhere_is_one_sentence(tmp_path, form):
    """Bytes overwritten, bits flipped, ranges cut out, at random places: it loads, or says that it can't."""
    arrays = seeded_state_dict("salema", 64)
    path = tmp_path / "weights"
    if form.startswith("npz"):
        save = np.savez_compressed if "compressed" in form else np.savez
        with path.open("wb") as file:
            save(file, *[arrays[f"salgan.{index}.{part}"] for index in CONVS for part in ("weight", "bias")])
    else:
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        if form == "safetensors":
            save_safetensors(path, tensors, None, Architecture("salema", (30,)), trained=True)
        else:
            torch.save({"state_dict": tensors}, path, _use_new_zipfile_serialization=form == "zip")
    original = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(MUTATIONS):
        data = bytearray(original)
        where = int(
            rng.choice([rng.integers(len(data)), rng.integers(min(3000, len(data))), len(data) - rng.integers(1, 3000)])
        )
        length = int(rng.integers(1, 40))
        match rng.integers(3):
            case 0:
                data[where : where + length] = rng.bytes(length)
            case 1:
                data[where] ^= 1 << int(rng.integers(8))
            case _:
                del data[where : where + length]
        path.write_bytes(data)
        try:
            load_checkpoint(str(path))
        except CheckpointError as error:
            refused += 1
            assert str(error).startswith((str(path), path.name))
            assert "\n" not in str(error)
            assert "weights_only" not in str(error)
    assert refused > MUTATIONS / 4


def test_half_precision_checkpoints_become_float32(tmp_path, weights):
    path = tmp_path / "half.pt"
    torch.save({key: value.half() for key, value in weights["salema"].items()}, path)
    checkpoint = load_checkpoint(str(path))
    assert {value.dtype for value in checkpoint.weights.values()} == {torch.float32}


def test_seeded_weights_are_the_same_each_time():
    first, second = load_checkpoint("seeded:16"), load_checkpoint("seeded:16")
    assert first.sha256 == second.sha256
    assert not first.trained
    assert load_checkpoint("seeded:8").sha256 != first.sha256
    with pytest.raises(UsageError, match="seeded:0"):
        load_checkpoint("seeded:0")


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_pickle_does_not_run(tmp_path, weights, legacy):
    target = tmp_path / "was-run"
    path = tmp_path / "hostile.pt"
    torch.save(
        {"state_dict": weights["salema"], "epoch": Hostile(target)}, path, _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(CheckpointError, match=r"more than tensors \((posix|os)\.system\), which could run code"):
        load_checkpoint(str(path))
    assert not target.exists()


def test_a_hostile_npz_does_not_run(tmp_path):
    target = tmp_path / "was-run"
    path = tmp_path / "hostile.npz"
    arrays = {f"arr_{index}": np.zeros(1) for index in range(53)}
    np.savez(path, **arrays, arr_53=np.array([Hostile(target)], object))
    with pytest.raises(CheckpointError, match="truncated or damaged one"):
        load_checkpoint(str(path))
    assert not target.exists()


@pytest.mark.parametrize("keep", [0, 5, 4000, 0.5, 0.999])
@pytest.mark.parametrize("form", ["zip", "legacy", "npz", "safetensors"])
def test_truncated_files(tmp_path, weights, keep, form):
    path = tmp_path / "weights"
    if form == "npz":
        with path.open("wb") as file:
            np.savez(file, *[np.ones((4, 4), np.float32)] * 54)
    elif form == "safetensors":
        from safetensors.torch import save_file

        save_file(weights["salema"], str(path))
    else:
        torch.save(weights["salema"], path, _use_new_zipfile_serialization=form == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=str(path)):
        load_checkpoint(str(path))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x80\x02]q\x00.", b"PK\x05\x06" + 18 * b"\0", bytes(range(256)) * 40]
)
def test_files_that_are_no_checkpoint(tmp_path, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_checkpoint(str(path))


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
def test_weights_that_do_not_fit(tmp_path, weights, change, sentence):
    changed = {key: value.clone() for key, value in weights["salema"].items()}
    change(changed)
    path = tmp_path / "weights.pt"
    torch.save(changed, path)
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(str(path))


@pytest.mark.parametrize(("kind", "key"), [("salclstm30", "Gates.weight"), ("salclstm56", "Gates.bias")])
def test_gates_that_do_not_fit(tmp_path, weights, kind, key):
    path = tmp_path / "weights.pt"
    torch.save(weights[kind] | {key: weights[kind][key][:-4]}, path)
    with pytest.raises(CheckpointError, match=f"{key} has shape"):
        load_checkpoint(str(path))


def test_an_lstm_with_a_learned_alpha_is_refused(tmp_path, weights):
    path = tmp_path / "weights.pt"
    torch.save(weights["salclstm30"] | {"alpha": torch.zeros(1)}, path)
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


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, folder):
        self.requests_seen = 0
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.requests_seen += 1
        super().do_GET()

    def log_message(self, *args):
        pass


def test_a_url_is_downloaded_once(tmp_path, weights, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "served").mkdir()
    torch.save({"state_dict": weights["salema"]}, tmp_path / "served/SalEMA30R.pt")
    with _Server(tmp_path / "served") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/SalEMA30R.pt"
        try:
            checkpoints = [load_checkpoint(url) for _ in range(2)]
            seen = server.requests_seen
            with pytest.raises(CheckpointError, match=r"absent.pt: can't be downloaded .*404"):
                load_checkpoint(url.replace("SalEMA30R", "absent"))
        finally:
            server.shutdown()
    assert seen == 1
    for checkpoint in checkpoints:
        assert_same(checkpoint, weights["salema"])
        assert checkpoint.name == "SalEMA30R.pt"
        assert checkpoint.hint.architecture == Architecture("salema", (30,), residual=True)
    with pytest.raises(CheckpointError, match="the server can't be reached"):
        load_checkpoint(url.replace("SalEMA30R", "other"))


def test_a_download_that_is_no_checkpoint_does_not_stay(tmp_path, weights, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "served").mkdir()
    file = tmp_path / "served/SalEMA7.pt"
    file.write_text("<html>please log in</html>")
    with _Server(tmp_path / "served") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"HTTP://127.0.0.1:{server.server_port}/SalEMA7.pt?token=a/b"
        try:
            with pytest.raises(CheckpointError, match="not a PyTorch, safetensors or SalGAN"):
                load_checkpoint(url)
            torch.save(weights["salema"], file)
            checkpoint = load_checkpoint(url)
        finally:
            server.shutdown()
    assert checkpoint.name == "SalEMA7.pt"
    assert checkpoint.hint.architecture == Architecture("salema", (7,))
