import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from eval_maps import predict
from synthetic import write_dataset

from salema.benchmarks.scores.cli import main


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ((), 2, "give --dataset DHF1K"),
        (("--dataset", "other"), 2, "give either --pred DIR"),
        (("--dataset", "other", "--pred", "p", "--model", "m"), 2, "give either --pred DIR"),
        (("--dataset", "other", "--pred", "p"), 2, "give the folder of the ground truth with --gt DIR"),
        (("--dataset", "other", "--model", "m", "--gt", "g"), 2, "takes its frames from --src DIR"),
        (("--dataset", "LEDOV", "--pred", "p", "--gt", "g"), 2, "--dataset LEDOV: not one of DHF1K"),
        (("--dataset", "other", "--pred", "p", "--gt", "g", "--start", 1), 2, "--start and --end are for DHF1K"),
        (("--dataset", "other", "--pred", "p", "--gt", "g", "--protocol", "x"), 2, "--protocol x: not one of salema"),
        (("--dataset", "other", "--pred", "p", "--gt", "g", "--plot", "x.pdf"), 2, "plots are written as .png"),
        (("--dataset", "other", "--pred", "p", "--gt", "g", "--json", "no/x"), 1, "no/x: can't be written"),
        (("--dataset", "other", "--pred", "p", "--gt", "g"), 1, "g: no such folder"),
        (("--dataset", "other", "--pred", "p", "--gt", "."), 1, "holds no ground truth of other"),
        (("--dataset", "other", "--pred", "p", "--gt", "data"), 1, "p: no such folder"),
        (("--dataset", "other", "--pred", "empty", "--gt", "data"), 1, "no maps in <video>/"),
        (("--dataset", "other", "--pred", "data", "--gt", "data", "--naming", "x"), 2, "--naming x: not one of"),
        (("--dataset", "other", "--pred", "data", "--gt", "data", "--against-published"), 2, "not other's"),
        (("--dataset", "other", "--pred", "data", "--gt", "data", "--weights", "w"), 1, "holds no w_predictions"),
        (
            ("--dataset", "other", "--pred", "data", "--gt", "data", "--weights", "v,w"),
            2,
            "--weights v,w: give one name",
        ),
        (("--dataset", "other", "--model", "m", "--src", "s", "--weights", "w"), 2, "leave them out with --model"),
        (
            ("--dataset", "other", "--pred", "odd", "--gt", "data"),
            1,
            "no name of a map fits a frame of the ground truth",
        ),
        (
            ("--dataset", "DHF1K", "--pred", "p", "--gt", "g", "--start", 3, "--end", 1),
            2,
            "--start is greater than --end",
        ),
        (("--dataset", "other", "--pred", "p", "--gt", "g", "--json", "j", "--csv", "./j"), 2, "name the same file"),
        (("--dataset", "other", "--pred", "p", "--gt", "g", "--published"), 2, "the paper's rows are of"),
        (("--dataset", "DHF1K", "--pred", "p", "--gt", "g", "--published", "--protocol", "exact"), 2, "rows are of"),
        (("--pred", "p", "pack", "--pred", "q"), 2, "--pred stands before pack"),
        (("--dataset", "other", "--pred", "p", "--gt", "g", "--backend", "ncnn"), 2, "--backend is about --model"),
        (("--dataset", "other", "--pred", "p", "--gt", "g", "--json", "/dev/null"), 1, "is no ordinary file"),
        (("--seed", "-1"), 2, "salema-eval: invalid value for '--seed': "),
        (("--jobs", "x"), 2, "salema-eval: invalid value for '--jobs': "),
        (("pack", "--pred", "p", "--start", "one"), 2, "; see salema-eval pack --help"),
        (("pack", "--pred", "s3://b/maps"), 2, "--pred: pack works on this machine's files, and takes no URL; copy"),
        (("pack", "--pred", "data", "--src", "gs://b/DHF1K"), 2, "--src: pack works on this machine's files"),
        (("pack", "--pred", "data", "-o", "s3://b/x.zip"), 2, "--output: pack works on this machine's files"),
        (("--predd", "p"), 2, "salema-eval: no such option: --predd"),
        (("extra",), 2, "salema-eval: no such command 'extra'"),
    ],
)
def test_usage(cli, tmp_path, monkeypatch, arguments, code, sentence):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "data", "other", videos=2, frames=1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd/clip 1").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "odd/clip 1/x7.png"), np.zeros((2, 2), np.uint8))
    ran = cli(main, *arguments)
    assert ran.code == code
    assert sentence in ran.err
    assert len(ran.err.splitlines()) == 1
    assert ran.out == ""


def test_salema_eval_runs_without_torch_and_onnx(model, tmp_path):
    made = write_dataset(tmp_path / "data", "other", videos=2, frames=1)
    code = f"""
import sys
for name in ("torch", "onnx", "onnxscript", "safetensors", "pooch", "matplotlib", "scipy"):
    sys.modules[name] = None  # makes `import name` raise ImportError
from salema.benchmarks.scores.cli import main
sys.argv = ["salema-eval", "--model", {str(model)!r}, "--src", {str(made.source)!r}, "--dataset", "other"]
main()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "seeded:16 fp32 (mean over videos)" in ran.stdout


def test_a_library_that_is_missing_is_said_before_long_work(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ran = cli(main, "--dataset", "other", "--gt", "absent", "--pred", "absent", "--plot", "p.png")
    assert ran.code == 1
    assert "--plot needs Matplotlib" in ran.err
    assert "pip install 'salema[" in ran.err


def test_without_scipy_the_sentence_says_how_to_install_it(cli, tmp_path, monkeypatch):
    made = write_dataset(tmp_path / "data", "other", matlab=True)
    pred = predict(made, tmp_path / "pred")
    monkeypatch.setitem(sys.modules, "scipy", None)
    ran = cli(main, "--dataset", "other", "--gt", made.truth, "--pred", pred)
    assert ran.code == 1
    assert "reading MATLAB files needs SciPy" in ran.err
    assert "pip install 'salema[eval]'" in ran.err


def test_help_is_quick(cli):
    start = time.process_time()
    assert cli(main, "--help").code == 0
    assert time.process_time() - start < 0.5
