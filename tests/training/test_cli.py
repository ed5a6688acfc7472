import sys

import pytest

from salema.training.cli import main

SMALL = (
    "--width",
    "1/8",
    "--imgsz",
    "32",
    "32",
    "--clip-frames",
    "1",
    "--device",
    "cpu",
    "--epochs",
    "1",
    "--half-size",
    "0",
)


def test_a_run_from_the_command_line(cli, photographs, tmp_path):
    ran = cli(main, "--dataset", "photographs", "--src", photographs, "--val", "4:1", "-o", tmp_path / "run", *SMALL)
    assert ran.code == 0
    assert ran.out == f"{tmp_path / 'run'}\n"
    assert "squares: 6 to train on, 2 to validate on" in ran.err
    assert (tmp_path / "run/best.pt").is_file()


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        ((), 2, "give the dataset's folder with --src DIR"),
        (("--src", "nowhere"), 1, "nowhere: no such folder"),
        (("--dataset", "photographs", "--src", "."), 1, "holds 0 .npz files"),
        (("--recipe", "quick"), 2, "--recipe quick: not one of paper, default"),
        (("--dropout", "2"), 2, "'--dropout': 2.0 is not in the range 0<=x<=0.99"),
        (("--imgsz", "48", "64"), 2, "--imgsz 48 64: both must be multiples of 32 (half of it must be a multiple too"),
        (("--device", "tpu"), 2, "--device tpu: not one of auto, cpu, cuda"),
        (("--precision", "int4"), 2, "--precision int4: not one of fp32, bf16, fp16"),
        (("--precision", "fp16", "--device", "cpu"), 2, "--precision fp16: is for a GPU; take fp32 or bf16 on a CPU"),
        (
            ("--teacher", "t.pt", "--bce", "0", "--kld", "0", "--cc", "0"),
            2,
            "its maps are learned by --bce, --kld and",
        ),
        (("--batch", "4", "--accumulate", "5"), 2, "--accumulate 5: a step has 4 clips; give 4 or less"),
    ],
)
def test_wrong_options_end_in_one_sentence(cli, tmp_path, monkeypatch, options, code, sentence):
    monkeypatch.chdir(tmp_path)
    ran = cli(main, *options, "-o", tmp_path / "run")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("salema-train: ")
    assert sentence in ran.err
    assert ran.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--arch", "resnet"), "--arch resnet: not one of salema30"),
        (("--width", "1/3"), "--width 1/3: channels must be multiples of 8"),
        (("--width", "two"), "--width two: not a number"),
        (("--init", "gone.pt"), "gone.pt: no such file"),
        (("--arch", "salema99"), "--arch salema99: locations go from 0 to 61"),
        (("--arch", "salema0r"), "--arch salema0r: layer 0 changes the shape of what enters it"),
        (("--arch", "salgan", "--alpha", "0.2"), "--alpha 0.2: is the coefficient of an average, and SalGAN has none"),
        (("--resume",), "holds no run; leave it out"),
        (("--teacher", "."), "holds no predictions of other"),
        (("--alpha", "2"), "--alpha 2: not 'learned', and not a number in (0, 1]"),
        (("--arch", "salgan", "--dropout", "0.5"), "--dropout 0.5: drops what enters an average, and SalGAN has none"),
    ],
)
def test_wrong_networks_are_named(cli, photographs, tmp_path, options, sentence):
    ran = cli(main, "--dataset", "photographs", "--src", photographs, "--val", "4:1", "-o", tmp_path / "run", *options)
    assert ran.code in {1, 2}
    assert sentence in ran.err
    assert not (tmp_path / "run").exists()


def test_a_missing_library_is_named_with_its_install_line(cli, photographs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "salema.training.run", None)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    ran = cli(main, "--dataset", "photographs", "--src", photographs, "-o", tmp_path / "run")
    assert ran.code == 1
    assert "pip install 'salema[train]'" in ran.err
