import json
import shutil

import pytest
from limits import small_files
from sequence_batcher import read_config
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from salema.export import cli as export_cli
from salema.export.engine.builder import build_plan
from salema.export.options import EngineOptions
from salema.export.serving import emit as emitting
from salema.export.serving.graphs import looped, sequenced
from salema.runtime.gpu.trt_library import TENSORRT_RTX, load_library
from salema.runtime.onnx_metadata import parse_spec

NARROW = ("--weights", "seeded:16", "--imgsz", 64, 96)


def test_with_an_export_and_beside_one(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = cli(export_cli.main, *NARROW, "--batch", "dynamic", "--emit", "triton", "--batch-profile", 1, 4, 16)
    assert ran.code == 0, ran.err
    assert (
        "triton            salema-model/triton/salema/1/model.onnx, salema-model/triton/salema/config.pbtxt" in ran.out
    )
    config = (tmp_path / "salema-model/triton/salema/config.pbtxt").read_text()
    assert "max_batch_size: 16\n" in config
    assert "preferred_batch_size: [4]\n" in config
    ran = cli(export_cli.main, "--from", "salema-model", "--emit", "deepstream", "--json")
    assert ran.code == 0, ran.err
    paths = json.loads(ran.out)["server"]["deepstream"]
    assert [path.removeprefix("salema-model/deepstream/") for path in paths] == [
        "models/salema/1/model.onnx",
        "models/salema/config.pbtxt",
        "nvinferserver.txt",
        "pipeline.txt",
    ]
    assert all((tmp_path / path).is_file() for path in paths)


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("--emit", "torchserve"), 2, "--emit torchserve: not one of triton, deepstream"),
        (("--emit", "triton"), 2, "--emit triton: the model has a batch of 1; export it with --batch dynamic"),
        (("--emit", "triton", "--batch", "dynamic", "--split"), 2, "a server runs whole models; export it without"),
        (("--emit", "triton", "--batch", "dynamic", "--engine", "tensorrt-rtx"), 2, "Triton does not run that; use"),
        (("--emit", "triton", "--batch", "dynamic", "--workspace", 1), 2, "engine options were given; add --engine"),
        (("--emit", "triton", "--batch", "dynamic", "--batch-profile", 4, 2, 1), 2, "give least, best and greatest"),
        (("--emit", "deepstream", "--batch", "dynamic", "--batch-profile", 1, 1, 4), 2, "the state of one stream only"),
        (("--emit", "triton", "--batch", "dynamic", "--engine", "tensorrt"), 1, "TensorRT"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_export(cli, tmp_path, options, code, sentence):
    ran = cli(export_cli.main, *NARROW, "-o", tmp_path / "model", *options)
    assert (ran.code, sentence in ran.err.splitlines()[-1]) == (code, True), ran.err
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_does_not_suit_is_refused(cli, model, exported, tmp_path):
    ran = cli(export_cli.main, "--from", model, "--emit", "triton")
    assert (ran.code, "has a batch of 1; export it with --batch dynamic" in ran.err) == (2, True)
    ran = cli(export_cli.main, "--from", exported(split=True), "--emit", "triton")
    assert (ran.code, "export it without --split" in ran.err) == (2, True)
    ran = cli(export_cli.main, "--from", tmp_path / "absent", "--emit", "triton")
    assert (ran.code, "no such model" in ran.err) == (1, True)
    ran = cli(export_cli.main, "--from", model, "--engine", "none")
    assert (ran.code, "leaves nothing to do" in ran.err) == (2, True)


@pytest.mark.parametrize("target", ["triton", "deepstream"])
def test_an_engine_takes_the_place_of_the_graph(repository, tmp_path, monkeypatch, target):
    """With TensorRT-RTX in TensorRT's place, which builds without a GPU; its inspector needs one."""
    monkeypatch.setattr(emitting, "TENSORRT", TENSORRT_RTX)
    monkeypatch.setattr(emitting, "check_ready", lambda *_: None)
    monkeypatch.setattr(emitting, "inspect_plan", lambda *_: '{"Layers": []}')
    shutil.copy(repository() / "model.onnx", tmp_path)
    emitted = emitting.emit(tmp_path, target, "tensorrt", EngineOptions(targets=("sm89",)), lambda _: None)
    root = tmp_path / target / ("models/salema" if target == "deepstream" else "salema")
    assert root / "1/model.plan" in emitted.paths
    assert (root / "1/model.plan").stat().st_size > 100_000
    assert not (root / "1/model.onnx").exists()
    config = read_config(root)
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 8 if target == "triton" else 1)
    assert config.instance_group[0].kind == ModelInstanceGroup.KIND_GPU


def test_a_full_disk_leaves_nothing(cli, repository):
    folder = repository("deepstream")
    with small_files(100_000):
        ran = cli(export_cli.main, "--from", folder, "--emit", "triton")
    assert (ran.code, "model.onnx: can't be written (File too large)" in ran.err) == (1, True)
    assert not (folder / "triton").exists()


@pytest.mark.parametrize("make", [sequenced, looped])
def test_tensorrts_parser_and_builder_take_the_graphs(exported, make):
    """TensorRT-RTX builds without a GPU; that TensorRT does so too is unverified."""
    file = exported(batch=None) / "model.onnx"
    graph, spec = make(file.read_bytes(), parse_spec(file.read_bytes(), str(file)))
    options = EngineOptions(targets=("sm89",))
    plan = build_plan(load_library(TENSORRT_RTX), graph, str(file), spec, options, (1, 2, 4))
    assert plan.convolutions > 20
