"""TensorRT-RTX parses and builds engines here without a GPU; TensorRT's own path differs in options only."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from salema.export.engine import to_engine
from salema.export.engine.to_engine import build_chosen, build_engine, check_ready
from salema.export.options import EngineOptions
from salema.kernels.gpus import Gpu
from salema.runtime.errors import BackendError, MissingDependencyError, OutputError, UsageError
from salema.runtime.gpu.engine_files import read_engine
from salema.runtime.gpu.trt_library import KINDS, RTX_TARGETS, TENSORRT, TENSORRT_RTX, load_library

pytestmark = pytest.mark.tensorrt
SM89 = EngineOptions(targets=("sm89",))
VARIANTS = {
    "SalGAN": {"arch": "salgan"},
    "SalEMA30": {},
    "SalEMA30R": {"residual": True},
    "SalEMA30+54": {"ema_locs": (30, 54)},
    "SalEMA0": {"ema_locs": (0,)},
    "SalEMA61": {"ema_locs": (61,)},
    "SalCLSTM30": {"arch": "salclstm30"},
    "SalCLSTM56": {"arch": "salclstm56"},
    "SalEMA30, upsampling cropped": {"for_": "onnxruntime"},
    "SalEMA30, upsampling transposed": {"for_": "openvino"},
    "SalEMA30, mean as a channel": {"mean_channel": True},
}


def quiet(line):
    pass


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_builds_with_its_convolutions_in_its_precision(copied, variant, precision):
    folder = copied(precision=precision, **VARIANTS[variant])
    built = build_engine(folder / "model.onnx", TENSORRT_RTX, SM89, quiet)
    plan, info = read_engine(built.path, TENSORRT_RTX)
    assert info == built.info
    assert len(plan) == built.size_bytes > 100_000
    assert info.spec.precision == precision
    kinds = {"Conv", "ConvTranspose"}
    expected = sum(node.op_type in kinds for node in onnx.load(folder / "model.onnx").graph.node)
    assert info.convolutions == expected >= 26
    assert info.targets == ("sm89",)
    assert info.batch_profile == (1, 1, 1)
    assert info.library_version == load_library(TENSORRT_RTX).version
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "model.rtx.engine", "model.rtx.engine.json"]


def test_every_target_that_the_library_knows_builds_and_is_listed(folder):
    import tensorrt_rtx

    known = {name.lower() for name in tensorrt_rtx.ComputeCapability.__members__ if name.startswith("SM")}
    assert known == set(RTX_TARGETS)
    plans = set()
    for target in RTX_TARGETS:
        built = build_engine(folder / "model.onnx", TENSORRT_RTX, EngineOptions(targets=(target,)), quiet)
        plans.add(built.info.plan_sha256)
    assert len(plans) > 1  # targets really reach the builder
    built = build_engine(folder / "model.onnx", TENSORRT_RTX, EngineOptions(targets=RTX_TARGETS), quiet)
    assert built.info.targets == RTX_TARGETS


def test_a_free_batch_takes_a_profile(copied):
    folder = copied(batch=None)
    assert build_engine(folder / "model.onnx", TENSORRT_RTX, SM89, quiet).info.batch_profile == (1, 1, 8)
    options = EngineOptions(targets=("sm89",), batch_profile=(2, 4, 4), workspace_gib=0.5)
    info = build_engine(folder / "model.onnx", TENSORRT_RTX, options, quiet).info
    assert (info.batch_profile, info.workspace_gib, info.optimization_level) == ((2, 4, 4), 0.5, None)
    for profile in ((0, 1, 2), (3, 2, 4), (1, 5, 4)):
        with pytest.raises(UsageError, match=f"--batch-profile {' '.join(map(str, profile))}: give least, best"):
            build_engine(
                folder / "model.onnx", TENSORRT_RTX, EngineOptions(targets=("sm89",), batch_profile=profile), quiet
            )


def test_a_fixed_batch_takes_none(folder):
    with pytest.raises(UsageError, match="exported with --batch 1; export it with --batch dynamic"):
        build_engine(
            folder / "model.onnx", TENSORRT_RTX, EngineOptions(targets=("sm89",), batch_profile=(1, 2, 4)), quiet
        )


@pytest.mark.parametrize(
    ("backend", "options", "sentence"),
    [
        ("tensorrt-rtx", {"targets": ("sm87",)}, "--target sm87: .*Orin sm87.*need --engine tensorrt"),
        ("tensorrt-rtx", {"targets": ("ada",)}, "--target ada: TensorRT-RTX builds for sm75"),
        ("tensorrt-rtx", {"timing_cache": "t"}, "--timing-cache goes with --engine tensorrt only"),
        ("tensorrt-rtx", {"optimization_level": 0}, "--optimization-level goes with --engine tensorrt only"),
        ("tensorrt-rtx", {"version_compatible": True}, "--version-compatible goes with --engine tensorrt only"),
        ("tensorrt-rtx", {"hardware_compatible": True}, "give --target once for each kind of GPU"),
        ("tensorrt", {"targets": ("sm89",)}, "--target: TensorRT builds for the GPU it runs on"),
        ("tensorrt", {"optimization_level": 6}, "--optimization-level 6: give 0 to 5"),
        ("tensorrt", {"workspace_gib": 0.0}, r"--workspace 0\.0: give the GiB"),
        ("tensorrt", {"workspace_gib": float("nan")}, "--workspace nan: give the GiB"),
        ("tensorrt", {"workspace_gib": float("inf")}, "--workspace inf: give the GiB"),
        ("tensorrt", {"batch_profile": (4, 2, 8)}, "--batch-profile 4 2 8: give least, best and greatest"),
        ("auto", {"optimization_level": 9}, "--optimization-level 9: give 0 to 5"),
        ("auto", {"targets": ("sm90",)}, "--target sm90: .*need --engine tensorrt"),
        ("auto", {"targets": ("sm89",), "batch_profile": (1, 2, 4)}, "exported with --batch 1; export it with --batch"),
        ("none", {"workspace_gib": 1.0}, "--engine none builds nothing"),
    ],
)
def test_options_that_cannot_be_right(tmp_path, backend, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        check_ready(tmp_path, backend, EngineOptions(**options), 1)


def test_auto_takes_tensorrt_rtx_for_a_target_and_says_so(folder):
    lines = []
    (built,) = build_chosen(folder, "auto", SM89, lines.append)
    assert built.path.name == "model.rtx.engine"
    assert lines[0] == "engine        TensorRT-RTX (auto: only TensorRT-RTX builds for a --target)"
    for named in (folder, folder / "model.onnx"):
        assert build_chosen(named, "none", EngineOptions(), lines.append) == ()
        note = f"{folder} also holds an engine of TensorRT-RTX; if it is older than the model, build it again with: "
        assert f"{note}salema-export --from" in lines.pop()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("backend", [pytest.param(kind, marks=pytest.mark.gpu(kind)) for kind in KINDS])
def test_on_a_gpu_the_inspector_shows_the_precision_or_its_words_are_kept(copied, backend, precision):
    built = build_engine(copied(precision=precision) / "model.onnx", KINDS[backend], EngineOptions(), quiet)
    kept = built.path.with_name(f"{built.path.name}.layers.json")
    assert kept.is_file() == (built.info.precision_shown_by == "network")


def test_an_engine_of_which_the_inspector_shows_nothing_is_kept_with_its_words(folder, monkeypatch):
    """Only the inspector, which needs the GPU, is a stand-in."""
    shown = {"kernels only": [{"Name": "__myl_0", "LayerType": "kgen"}]}
    shown["in fp32"] = [{"Name": "c", "LayerType": "CaskConvolution", "Weights": {"Type": "Float"}}]
    shown["in half"] = [{"Name": "c", "LayerType": "CaskConvolution", "Weights": {"Type": "Half"}}]
    words = {name: json.dumps({"Layers": layers}) for name, layers in shown.items()}
    gpu = Gpu(0, "RTX 4090", (8, 9), 1, integrated=False)
    monkeypatch.setattr(to_engine, "list_gpus", lambda: [gpu])
    told = []

    def build(name):
        monkeypatch.setattr(to_engine, "inspect_plan", lambda *_: words[name])
        return build_engine(folder / "model.onnx", TENSORRT_RTX, EngineOptions(), told.append)

    assert build("kernels only").info.precision_shown_by == "network"
    kept = folder / "model.rtx.engine.layers.json"
    assert kept.read_text() == words["kernels only"]
    assert told[-1].startswith("note: the inspector shows no convolution in fp32, and none in another precision; ")
    assert told[-1].endswith(str(kept))
    before = (folder / "model.rtx.engine").read_bytes()
    with pytest.raises(BackendError, match="1 of 1 convolutions don't run in fp32: c in fp16"):
        build("in half")
    assert (folder / "model.rtx.engine").read_bytes() == before
    assert build("in fp32").info.precision_shown_by == "inspector"
    assert not kept.exists()


def test_places_that_cannot_be_written_are_told_before_the_build(folder):
    (folder / "model.rtx.engine").mkdir()
    lines = []
    with pytest.raises(OutputError, match=r"model\.rtx\.engine: is a folder"):
        build_engine(folder / "model.onnx", TENSORRT_RTX, SM89, lines.append)
    assert lines == []


def test_a_linked_engine_is_replaced_and_what_it_points_to_is_left_alone(folder, tmp_path):
    (tmp_path / "other.engine").write_bytes(b"another model's")
    (folder / "model.rtx.engine").symlink_to(tmp_path / "other.engine")
    path = build_engine(folder / "model.onnx", TENSORRT_RTX, SM89, quiet).path
    assert (tmp_path / "other.engine").read_bytes() == b"another model's"
    assert read_engine(path, TENSORRT_RTX)


def test_a_library_that_is_missing_or_too_old(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two of these texts are of one length, and of one second
    (tmp_path / "tensorrt.py").write_text("__version__ = '8.6.1'")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MissingDependencyError, match=r"TensorRT 8\.6\.1 is too old, 10\.3 is the oldest that works"):
        load_library(TENSORRT)
    sys.modules.pop("tensorrt")
    (tmp_path / "tensorrt.py").write_text("")  # a stub of the library has no version
    with pytest.raises(MissingDependencyError, match=r"can't be imported .*pip install 'salema\[tensorrt\]'.*JetPack"):
        load_library(TENSORRT)
    sys.modules.pop("tensorrt")
    for text in ("raise RuntimeError('broken')", "__version__ = '10.x'", "__version__ = '10.9'"):
        (tmp_path / "tensorrt.py").write_text(text)
        with pytest.raises(MissingDependencyError, match="TensorRT can't be imported"):
            load_library(TENSORRT)
        sys.modules.pop("tensorrt", None)


def test_a_library_has_one_logger_however_often_it_is_loaded():
    """TensorRT passes over another one while it has one in use, and errors would come without their reasons."""
    first, again = load_library(TENSORRT_RTX), load_library(TENSORRT_RTX)
    assert again == first
    assert again.logger is first.logger


def test_building_needs_neither_torch_nor_onnx(folder):
    """As on a Jetson: the modules are made unimportable, and the command builds all the same."""
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxscript', 'onnxruntime'): sys.modules[name] = None\n"
        f"sys.argv[1:] = ['--from', {str(folder)!r}, '--engine', 'tensorrt-rtx', '--target', 'sm89', '--json']\n"
        "from salema.export.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert list(record) == ["engines"]
    assert record["engines"][0]["convolutions"] == 27
    assert (folder / "model.rtx.engine").stat().st_size == record["engines"][0]["size_bytes"]


def test_weights_reach_the_engine(folder, build):
    first = build(folder).path.read_bytes()
    proto = onnx.load(folder / "model.onnx")
    largest = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    zeros = np.zeros_like(numpy_helper.to_array(largest))
    largest.CopyFrom(numpy_helper.from_array(zeros, largest.name))
    onnx.save(proto, folder / "model.onnx")
    assert build(folder).path.read_bytes() != first
