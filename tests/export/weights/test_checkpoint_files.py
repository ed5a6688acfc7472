import http.server
import os
import threading
from functools import partial

import numpy as np
import pytest
import torch

from salema.export.weights.architecture import CONVS, Architecture
from salema.export.weights.checkpoint_files import save_safetensors
from salema.export.weights.checkpoints import load_checkpoint
from salema.export.weights.eight_bits import packed
from salema.export.weights.seeded import seeded_state_dict
from salema.runtime.errors import CheckpointError


@pytest.fixture(scope="module")
def weights():
    return {"salema": {key: torch.from_numpy(array) for key, array in seeded_state_dict("salema", 16).items()}}


MUTATIONS = 150


@pytest.mark.parametrize("form", ["zip", "legacy", "npz", "npz compressed", "safetensors", "safetensors in 8 bits"])
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
        if form.startswith("safetensors"):
            tensors = packed(tensors) if "8" in form else tensors
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
            with pytest.raises(CheckpointError, match=r"absent.pt: can't be downloaded \(404 File not found\); check"):
                load_checkpoint(url.replace("SalEMA30R", "absent"))
            with pytest.raises(CheckpointError) as failed:
                load_checkpoint(f"{url.replace('SalEMA30R', 'absent').replace('://', '://me:secret@')}?token=secret")
            assert "absent.pt: can't be downloaded (404" in str(failed.value)
            assert "secret" not in str(failed.value)
        finally:
            server.shutdown()
    assert seen == 1
    for checkpoint in checkpoints:
        assert set(checkpoint.weights) == set(weights["salema"])
        torch.testing.assert_close(checkpoint.weights["salgan.30.weight"], weights["salema"]["salgan.30.weight"])
        assert checkpoint.name == "SalEMA30R.pt"
        assert checkpoint.hint.architecture == Architecture("salema", (30,), residual=True)
    with pytest.raises(CheckpointError, match="the server can't be reached"):
        load_checkpoint(url.replace("SalEMA30R", "other"))
    with pytest.raises(CheckpointError, match=r"^http://127.0.0.1:\d+/gone.pt: can't be downloaded") as failed:
        load_checkpoint(f"http://me:secret@127.0.0.1:{server.server_port}/gone.pt?token=secret")
    assert "secret" not in str(failed.value)
    with pytest.raises(CheckpointError, match="^this URL of weights can't be read; check the address$"):
        load_checkpoint("http://[secret/gone.pt")


def test_a_cache_that_cannot_be_written_is_not_the_network_s_fault(tmp_path, weights, monkeypatch):
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "served").mkdir()
    torch.save(weights["salema"], tmp_path / "served/SalEMA30.pt")
    with _Server(tmp_path / "served") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(CheckpointError, match=r"can't be kept in \S+/cache/salema \(.*; make room there, or"):
                load_checkpoint(f"http://127.0.0.1:{server.server_port}/SalEMA30.pt")
        finally:
            server.shutdown()


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
