"""TensorRT-RTX parses and builds engines here without a GPU; TensorRT's own path differs in options only."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from salema.export.engine import builder as engine_builder
from salema.export.engine.progress import BuildProgress
from salema.export.engine.to_engine import build_chosen, build_engine, check_ready
from salema.export.options import EngineOptions
from salema.runtime.errors import BackendError, MissingDependencyError, ModelError, OutputError, UsageError
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


@pytest.fixture
def folder(model, tmp_path):
    """A copy of a model's folder, to write engines into."""
    (tmp_path / "model.onnx").write_bytes((model / "model.onnx").read_bytes())
    return tmp_path


@pytest.fixture
def copied(exported, tmp_path):
    def copy(**options):
        (tmp_path / "model.onnx").write_bytes((exported(**options) / "model.onnx").read_bytes())
        return tmp_path

    return copy


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


def without_gpu(code, *args):
    """Runs Python where CUDA shows no GPU, if there is one."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, env=environment
    )


EXPORT = "from salema.export.cli import main; main()"


def test_without_a_gpu_the_command_says_what_to_run_where(folder):
    done = without_gpu(EXPORT, "--from", folder)
    assert done.returncode == 1
    assert re.fullmatch(
        "salema-export: no engine was built: no NVIDIA .*; on the machine with the GPU run: salema-export --from"
        rf" {folder} --engine tensorrt \(or tensorrt-rtx, which builds here with --target\)\n",
        done.stderr,
    )
    done = without_gpu(EXPORT, "--weights", "seeded:32", "--imgsz", 32, 32, "-o", folder / "new")
    assert done.returncode == 0
    assert re.search(r"engine        none \(auto: no NVIDIA .*--from \S+/new --engine tensorrt", done.stderr)
    done = without_gpu(EXPORT, "--weights", "seeded:32", "--optimization-level", 4, "-o", folder / "newer")
    assert done.returncode == 1
    assert "options of an engine were given, and none can be built: no NVIDIA" in done.stderr
    assert not (folder / "newer").exists()
    (folder / "new/model.onnx").unlink()
    (folder / "new").rmdir()
    done = without_gpu(EXPORT, "--from", folder, "--engine", "tensorrt-rtx")
    assert done.returncode == 1
    assert re.search("builds on the GPU that the engine is for: no NVIDIA .*such as --target sm89", done.stderr)
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]


def test_loading_an_engine_without_a_gpu_ends_in_a_sentence(folder):
    path = build_engine(folder / "model.onnx", TENSORRT_RTX, SM89, quiet).path
    code = (
        "import sys; from pathlib import Path; from salema.runtime.gpu.trt_engine import deserialize\n"
        "from salema.runtime.gpu.trt_library import TENSORRT_RTX, load_library\n"
        "from salema.runtime.errors import BackendError\n"
        "plan, library = Path(sys.argv[1]).read_bytes(), load_library(TENSORRT_RTX)\n"
        "runtime = library.trt.Runtime(library.logger)\n"
        "for load in (lambda: deserialize(library, plan, 'it', version_compatible=False),\n"
        "             lambda: library.must(runtime.deserialize_cuda_engine(plan), 'loading')):\n"
        "    try: load()\n"
        "    except BackendError as error: print(error)\n"
    )
    done = without_gpu(code, path)
    ours, theirs = done.stdout.splitlines()
    assert re.match("no NVIDIA (driver|GPU) .*nvidia-smi", ours)
    assert re.match(r"TensorRT-RTX \S+: loading failed: no NVIDIA (driver|GPU) .*(cudaError|CUDA)", theirs)
    assert done.stderr == ""
    done = without_gpu(
        "from salema.runtime.cli.run import main; main()", __file__, "--model", folder, "--backend", "tensorrt-rtx"
    )
    assert done.returncode == 1
    assert re.fullmatch("salema-run: no NVIDIA (driver|GPU) .*\n", done.stderr)


def test_auto_takes_tensorrt_rtx_for_a_target_and_says_so(folder):
    lines = []
    (built,) = build_chosen(folder, "auto", SM89, lines.append)
    assert built.path.name == "model.rtx.engine"
    assert lines[0] == "engine        TensorRT-RTX (auto: only TensorRT-RTX builds for a --target)"
    for named in (folder, folder / "model.onnx"):
        assert build_chosen(named, "none", EngineOptions(), lines.append) == ()
        assert f"{folder} holds an engine of TensorRT-RTX; if it is older: salema-export --from" in lines.pop()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("backend", KINDS)
def test_on_a_gpu_the_inspector_shows_the_precision(copied, backend, precision):
    built = build_engine(copied(precision=precision) / "model.onnx", KINDS[backend], EngineOptions(), quiet)
    assert built.info.precision_shown_by == "inspector"


@pytest.mark.parametrize("keep", [0, 1, 1000, -1])
def test_damaged_models_end_in_a_sentence_and_leave_no_engine(folder, keep):
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[:keep])
    with pytest.raises(ModelError, match="not an ONNX file, or cut off|not one that salema-export wrote"):
        build_engine(folder / "model.onnx", TENSORRT_RTX, SM89, quiet)
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]


def change(folder, edit):
    proto = onnx.load(folder / "model.onnx")
    edit(proto)
    onnx.save(proto, folder / "model.onnx")


def test_an_operation_that_the_library_lacks(folder):
    def edit(proto):
        next(node for node in proto.graph.node if node.op_type == "Relu").op_type = "NoSuchOperation"

    change(folder, edit)
    with pytest.raises(BackendError, match="the library lacks an operation of the model; upgrade it") as error:
        build_engine(folder / "model.onnx", TENSORRT_RTX, SM89, quiet)
    assert "NoSuchOperation" in str(error.value)
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]


def test_a_model_that_is_not_typed_as_it_says(folder):
    def edit(proto):
        record = json.loads(proto.metadata_props[0].value)
        proto.metadata_props[0].value = json.dumps(record | {"precision": "fp16"})

    change(folder, edit)
    with pytest.raises(ModelError, match="27 of 27 convolutions are not fp16 in the parsed network"):
        build_engine(folder / "model.onnx", TENSORRT_RTX, SM89, quiet)


def test_a_model_whose_tensors_are_others(folder):
    change(folder, lambda proto: setattr(proto.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 80))
    with pytest.raises((ModelError, BackendError), match="inputs and outputs are not those|failed"):
        build_engine(folder / "model.onnx", TENSORRT_RTX, SM89, quiet)


def test_weights_reach_the_engine(folder):
    first = build_engine(folder / "model.onnx", TENSORRT_RTX, SM89, quiet).path.read_bytes()

    def edit(proto):
        largest = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        zeros = np.zeros_like(numpy_helper.to_array(largest))
        largest.CopyFrom(numpy_helper.from_array(zeros, largest.name))

    change(folder, edit)
    assert build_engine(folder / "model.onnx", TENSORRT_RTX, SM89, quiet).path.read_bytes() != first


def test_a_build_reports_progress_and_ends_when_interrupted(folder, monkeypatch):
    seen = []

    class Watched(BuildProgress):
        def step(self, phase, step):
            seen.append((phase, step))
            return super().step(phase, step)

    monkeypatch.setattr(engine_builder, "BuildProgress", Watched)
    build_engine(folder / "model.onnx", TENSORRT_RTX, SM89, quiet)
    assert len(seen) > 50

    class Interrupted(BuildProgress):
        def step(self, phase, step):
            os.kill(os.getpid(), number)
            return super().step(phase, step)

    monkeypatch.setattr(engine_builder, "BuildProgress", Interrupted)
    before = (folder / "model.rtx.engine").read_bytes()
    handler = signal.getsignal(signal.SIGINT)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        before_test = signal.signal(number, handler)  # nohup has SIGHUP ignored
        try:
            with pytest.raises(KeyboardInterrupt):
                build_engine(folder / "model.onnx", TENSORRT_RTX, SM89, quiet)
            assert signal.getsignal(number) == handler
        finally:
            signal.signal(number, before_test)
    assert (folder / "model.rtx.engine").read_bytes() == before


def test_the_progress_bar_counts_outermost_phases():
    progress = BuildProgress()
    progress.start("Building", None, 3)
    progress.start("Inner", "Building", 50)
    assert all(progress.step("Inner", step) for step in range(50))
    assert progress.step("Building", 0)
    progress.start("Second", None, 1)
    assert progress.phases == ["Building", "Second"]
    progress.close()
    progress.close()


def test_a_file_that_changes_while_it_is_built_does_not_pass_as_the_new_one(folder, monkeypatch):
    old = (folder / "model.onnx").read_bytes()

    class Changes(BuildProgress):
        def step(self, phase, step):
            (folder / "model.onnx").write_bytes(old + b"\x72\x00")
            return super().step(phase, step)

    monkeypatch.setattr(engine_builder, "BuildProgress", Changes)
    path = build_engine(folder / "model.onnx", TENSORRT_RTX, SM89, quiet).path
    with pytest.raises(ModelError, match=r"model\.onnx beside it is another by now"):
        read_engine(path, TENSORRT_RTX)


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
    (tmp_path / "tensorrt.py").write_text("__version__ = '8.6.1'")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MissingDependencyError, match=r"TensorRT 8\.6\.1 is too old, 10\.3 is the oldest that works"):
        load_library(TENSORRT)
    monkeypatch.delitem(sys.modules, "tensorrt")
    (tmp_path / "tensorrt.py").write_text("")  # a stub of the library has no version
    with pytest.raises(MissingDependencyError, match=r"can't be imported .*pip install 'salema\[tensorrt\]'.*JetPack"):
        load_library(TENSORRT)
    monkeypatch.delitem(sys.modules, "tensorrt")
    for text in ("raise RuntimeError('broken')", "__version__ = '10.x'", "__version__ = '10.9'"):
        (tmp_path / "tensorrt.py").write_text(text)
        with pytest.raises(MissingDependencyError, match="TensorRT can't be imported"):
            load_library(TENSORRT)
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)


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
