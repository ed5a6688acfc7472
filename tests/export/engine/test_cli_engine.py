"""`salema-export --engine` and `--from`, as a user types them."""

import json
import re
import sys

import pytest

from salema.export.cli import main

NARROW = ("--weights", "seeded:16", "--imgsz", 64, 96)
RTX = ("--engine", "tensorrt-rtx", "--target", "sm89")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(model, tmp_path):
    folder = tmp_path / "a model"
    folder.mkdir()
    (folder / "model.onnx").write_bytes((model / "model.onnx").read_bytes())
    return folder


def test_export_and_engine_in_one_go(cli, tmp_path):
    ran = cli(main, *NARROW, "--fp16", "-o", tmp_path / "m", *RTX, "--target", "sm120", "--json")
    assert ran.code == 0, ran.err
    record = json.loads(ran.out)
    assert record["spec"]["precision"] == record["engines"][0]["spec"]["precision"] == "fp16"
    assert record["engines"][0]["targets"] == ["sm89", "sm120"]
    assert names(tmp_path / "m") == ["model.onnx", "model.rtx.engine", "model.rtx.engine.json"]
    assert record["engines"][0] == {
        "path": str(tmp_path / "m/model.rtx.engine"),
        "size_bytes": (tmp_path / "m/model.rtx.engine").stat().st_size,
        **json.loads((tmp_path / "m/model.rtx.engine.json").read_text()),
    }


def test_an_engine_from_an_export(cli, folder):
    ran = cli(main, "--from", folder, *RTX, "--workspace", "0.5")
    assert ran.code == 0, ran.err
    assert "27 in fp32, typed so in the network; the engine is inspected when it is loaded" in ran.out
    assert "for               tensorrt-rtx " in ran.out
    facts = json.loads((folder / "model.rtx.engine.json").read_text())
    assert (facts["workspace_gib"], facts["optimization_level"]) == (0.5, None)
    assert (folder / "model.rtx.engine").read_bytes()[:4] != b"{"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "give either --weights FILE to export a checkpoint, or --from DIR"),
        (("--weights", "seeded", "--from", "x"), "give either --weights FILE to export a checkpoint, or --from DIR"),
        (("--from", "x", "--fp16"), "--fp16: the export in x has settled that; leave it out"),
        (("--from", "x", "--engine", "none"), "--from DIR --engine none leaves nothing to do"),
        (("--from", "x", "--batch", 2), "--batch: .*leave it out; for an engine it is --batch-profile"),
        (("--from", "x", "-o", "y"), "--output: the export in x has settled that"),
        (("--from", "x", "--engine", "onnx"), "--engine onnx: not one of auto, tensorrt, tensorrt-rtx, none"),
        ((*NARROW, "--engine", "none", "--target", "sm89"), "--engine none builds nothing"),
        ((*NARROW, "--engine", "tensorrt-rtx", "--target", "sm87"), "--target sm87: .*need --engine tensorrt"),
        ((*NARROW, *RTX, "--timing-cache", "t"), "--timing-cache goes with --engine tensorrt only"),
        (
            (*NARROW, *RTX, "--batch-profile", 1, 2, 4),
            "the model is exported with --batch 1; export it with --batch dynamic",
        ),
    ],
)
def test_usage(cli, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    ran = cli(main, *arguments)
    assert ran.code == 2, ran.err
    assert re.search(sentence, ran.err.splitlines()[-1])


def test_a_missing_library_is_told_before_the_export(cli, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    ran = cli(main, *NARROW, "-o", tmp_path / "m", *RTX)
    assert ran.code == 1
    assert ran.err.startswith("salema-export: TensorRT-RTX can't be imported")
    assert "pip install 'salema[tensorrt-rtx]'" in ran.err
    assert not (tmp_path / "m").exists()


def test_there_must_be_an_export(cli, tmp_path):
    ran = cli(main, "--from", tmp_path, *RTX)
    assert ran.code == 1
    assert "no such model; make one with: salema-export --weights FILE" in ran.err


def test_a_failed_build_keeps_and_reports_the_export(cli, tmp_path, monkeypatch):
    (tmp_path / "m/model.rtx.engine").mkdir(parents=True)  # where the engine must go
    ran = cli(main, *NARROW, "-o", tmp_path / "m", *RTX)
    assert ran.code == 1
    assert "model             " in ran.out
    assert ran.err.endswith("model.rtx.engine: is a folder; name a file\n")
    assert (tmp_path / "m/model.onnx").is_file()
    assert not list((tmp_path / "m").glob(".*"))
