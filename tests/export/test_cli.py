import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from limits import script, small_files
from reference import salema

from salema.export import cli as export_cli
from salema.export import exporter
from salema.export.weights.architecture import Architecture
from salema.export.weights.checkpoints import load_checkpoint
from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.errors import VerificationError

NARROW = ("--weights", "seeded:16", "--imgsz", 64, 96)


def checkpoint(path, *, alpha=None):
    weights = dict(load_checkpoint("seeded:16").weights)
    if alpha is not None:
        weights["alpha"] = torch.tensor([alpha])
    torch.save({"epoch": 8, "state_dict": weights, "optimizer": {}}, path)
    return path


def run_model(folder, frames):
    with load(folder) as stream:
        maps = np.stack([stream.step(frame) for frame in frames])
        return maps, stream.snapshot()


@pytest.mark.parametrize(
    ("options", "alpha", "coefficient", "said"),
    [
        ((), None, 0.1, "0.1, the default 0.1, used directly"),
        (("--alpha", "0.3"), None, 0.3, "0.3, --alpha 0.3, used directly"),
        (("--alpha", "0.1", "--alpha-sigmoid"), None, 1 / (1 + np.exp(-0.1)), "0.524979, sigmoid of --alpha 0.1"),
        ((), 0.25, 1 / (1 + np.exp(-0.25)), "0.562177, sigmoid of the checkpoint's learned alpha 0.25"),
    ],
)
def test_every_reading_of_the_coefficient_gives_its_maps(cli, tmp_path, options, alpha, coefficient, said):
    weights = checkpoint(tmp_path / "SalEMA30.pt", alpha=alpha)
    ran = cli(export_cli.main, "--weights", weights, "-o", tmp_path / "model", "--imgsz", 64, 96, *options)
    assert ran.code == 0
    assert f"coefficient       {said}" in ran.out
    frames = moving_disc(4, 64, 96)
    maps, state = run_model(tmp_path / "model", frames)
    expected_maps, expected_state = salema(load_checkpoint("seeded:16").weights, frames, coefficient, (30,))
    np.testing.assert_allclose(maps, expected_maps, atol=1e-5)
    np.testing.assert_allclose(state["ema30"], expected_state[0], atol=1e-4)


@pytest.mark.parametrize(
    ("case", "options"),
    [("salema30_learned0.25", {"alpha": 0.25, "alpha_sigmoid": True}), ("salclstm30", {"arch": "salclstm30"})],
)
def test_the_published_code_gives_the_maps_of_the_exported_file(exported, golden, disc, case, options):
    """At full size. SalGAN and the default coefficient: see `test_models.py`, and for a file `test_ncnn_session.py`."""
    maps, state = run_model(exported("seeded", **options), disc)
    np.testing.assert_allclose(maps, golden[case], atol=1e-5)
    names = ["hidden", "cell"] if case == "salclstm30" else ["ema30"]
    for index, name in enumerate(names):
        sums = [state[name].sum(dtype=np.float64), np.abs(state[name]).sum(dtype=np.float64)]
        np.testing.assert_allclose(sums, golden[f"{case}/state{index}_sum"], rtol=1e-5, atol=0.1)


def test_the_rate_of_the_training_is_stored(cli, tmp_path):
    for options, fps in ((), 30), (("--reference-fps", 23.976), 23.976):
        ran = cli(export_cli.main, *NARROW, *options, "-o", tmp_path / "model")
        assert f"reference rate    {fps:g} fps\n" in ran.out
        with load(tmp_path / "model") as stream:
            assert stream.spec.reference_fps == fps


def test_the_command_prints_what_it_did(cli, tmp_path):
    ran = cli(export_cli.main, *NARROW, "--half", "--residual", "-o", tmp_path / "model", "--json")
    assert ran.code == 0
    result = json.loads(ran.out)
    assert result["spec"]["architecture"] == "SalEMA30R"
    assert result["spec"]["precision"] == "fp16"
    assert 1e-6 < result["check"]["map_max"] < 3e-3
    assert result["check"]["cc"] >= 0.9999
    assert result["size_bytes"] == (tmp_path / "model/model.onnx").stat().st_size
    assert "UNTRAINED" in ran.err
    assert result["spec"]["weights_sha256"] in ran.err


def test_the_file_name_is_a_hint_that_is_printed(cli, tmp_path):
    weights = checkpoint(tmp_path / "SalEMA30R.pt")
    ran = cli(export_cli.main, "--weights", weights, "--imgsz", 32, 32, "-o", tmp_path / "model")
    assert (ran.code, "SalEMA30R, the file's name SalEMA30R.pt" in ran.out) == (0, True)


def test_saved_weights_load_without_options(cli, tmp_path):
    ours = tmp_path / "ours.safetensors"
    first = cli(export_cli.main, *NARROW, "--ema-loc", 7, "-o", tmp_path / "a", "--save-weights", ours)
    assert first.code == 0
    hint = load_checkpoint(str(ours)).hint
    assert hint.architecture == Architecture("salema", (7,))


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("--imgsz", 100, 96), 2, "--imgsz 100 96: both must be multiples of 16; the nearest are 96 96"),
        (("--imgsz", 0, 96), 2, "the nearest are 16 96"),
        (("--batch", 0), 2, "--batch 0: give 1 or more"),
        (("--batch", "many"), 2, "invalid value for '--batch': 'many' is not a whole number or 'dynamic'"),
        (("--fp32", "--half"), 2, "--fp32 --fp16: give one of them"),
        (("--ema-loc", 99), 2, "--ema-loc 99: locations go from 0 to 61"),
        (("--arch", "salgan", "--alpha", 0.1), 2, "--alpha is the coefficient of an EMA, and SalGAN has none"),
        (("--arch", "resnet"), 2, "--arch resnet: not one of auto"),
        (("--reference-fps", 0), 2, "--reference-fps 0: give frames per second, 0.001 to 1000"),
        (("--arch", "salgan", "--reference-fps", 25), 2, "--reference-fps counts the time of an EMA, and SalGAN has"),
        (("--alpha", 2), 2, "--alpha 2: the weight of the new frame must lie in (0, 1]"),
        (("--residual", "--ema-loc", 44), 2, "choose a ReLU or a convolution"),
        (("--nonsense",), 2, "no such option"),
        (("--weights", "absent.pt"), 1, "absent.pt: no such file; give a checkpoint"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(cli, tmp_path, options, code, sentence):
    ran = cli(export_cli.main, *NARROW, "-o", tmp_path / "model", *options)
    assert ran.code == code
    assert sentence in ran.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(cli, tmp_path):
    (tmp_path / "file").write_text("")
    ran = cli(export_cli.main, *NARROW, "-o", tmp_path / "file")
    assert ran.code == 1
    assert "can't make this folder (File exists)" in ran.err


def test_a_missed_check_exits_1_and_keeps_the_model_that_was_there(cli, tmp_path, monkeypatch):
    def miss(*_):
        raise VerificationError("the exported model is not the PyTorch model")

    folder = tmp_path / "model"
    assert cli(export_cli.main, *NARROW, "-o", folder).code == 0
    before = (folder / "model.onnx").read_bytes()
    monkeypatch.setattr(exporter, "verify", miss)
    for place in (folder, tmp_path / "fresh"):
        ran = cli(export_cli.main, *NARROW, "--alpha", 0.5, "-o", place)
        assert (ran.code, "not the PyTorch model" in ran.err) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    assert (folder / "model.onnx").read_bytes() == before


def test_a_full_disk(cli, model, tmp_path, monkeypatch):
    """With `model` the graph is traced already."""
    monkeypatch.chdir(tmp_path)
    with small_files(100_000):
        ran = cli(export_cli.main, *NARROW)
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith(
        "salema-export: salema-model/model.onnx: can't be written (File too large)"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_checkpoint_is_not_overwritten(cli, tmp_path):
    weights = checkpoint(tmp_path / "mine.pt")
    before = weights.read_bytes()
    ran = cli(export_cli.main, "--weights", weights, "--save-weights", weights, "-o", tmp_path / "model")
    assert (ran.code, "is the checkpoint itself" in ran.err) == (2, True)
    assert weights.read_bytes() == before


def test_seeded_weights_stay_untrained_when_saved(cli, tmp_path):
    ours = tmp_path / "ours.safetensors"
    assert cli(export_cli.main, *NARROW, "-o", tmp_path / "a", "--save-weights", ours).code == 0
    ran = cli(export_cli.main, "--weights", ours, "--imgsz", 64, 96, "-o", tmp_path / "b", "--json")
    assert "UNTRAINED" in ran.err
    assert json.loads(ran.out)["spec"]["trained"] is False


def test_too_much_memory_is_one_sentence(cli, tmp_path):
    ran = cli(export_cli.main, *NARROW, "--batch", 10**12, "-o", tmp_path / "deep/er/model")
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("salema-export: out of memory")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("hears_hangup")
@pytest.mark.parametrize("names", ["TERM", "HUP INT", "TERM TERM TERM"])
def test_signals_leave_nothing(tmp_path, names):
    command = [script("salema-export"), *map(str, NARROW), "-o", str(tmp_path / "model")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("model/.model.*.partial.onnx")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for name in names.split():
        process.send_signal(signal.Signals[f"SIG{name}"])
        time.sleep(0.01)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("salema-export: interrupted\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [("--arch", "salgan"), ("--ema-loc", 61), ("--fp16",)])
def test_the_smallest_size_passes_its_check(cli, tmp_path, options):
    ran = cli(export_cli.main, "--weights", "seeded:16", "--imgsz", 16, 16, "-o", tmp_path / "model", *options)
    assert ran.code == 0


def test_weights_that_cannot_be_saved_are_told_before_the_export_and_leave_no_model(cli, tmp_path):
    ran = cli(export_cli.main, *NARROW, "-o", tmp_path / "model", "--save-weights", tmp_path / "absent/a.safetensors")
    assert ran.code == 1
    assert ran.err.startswith(
        f"salema-export: {tmp_path}/absent/a.safetensors: can't be written (its folder is missing"
    )
    assert list(tmp_path.iterdir()) == []


def test_weights_are_not_saved_under_the_name_of_another_kind(cli, tmp_path):
    """Of the model that they make, say."""
    for name in ("model.onnx", "../model/model.ncnn.param", "../weights.pt"):
        ran = cli(export_cli.main, *NARROW, "-o", tmp_path / "model", "--save-weights", tmp_path / "model" / name)
        assert (ran.code, ran.err.splitlines()[-1].endswith(": not a name that ends in .safetensors")) == (2, True)
    assert list(tmp_path.iterdir()) == []
    inside = tmp_path / "model/weights.safetensors"
    assert cli(export_cli.main, *NARROW, "-o", tmp_path / "model", "--save-weights", inside).code == 0
    assert inside.is_file()


def test_help_is_fast_because_it_loads_no_torch():
    code = "import sys, salema.export.cli, salema.runtime.cli.run; sys.exit(bool({'torch', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    ran = subprocess.run(
        [script("salema-export"), "--help"], capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"}
    )
    assert ran.returncode == 0
    for option in ("--weights", "--fp16", "--half", "--ema-loc", "--alpha-sigmoid", "--imgsz", "--batch"):
        assert option in ran.stdout
