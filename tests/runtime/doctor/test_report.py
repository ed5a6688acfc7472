import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec

import onnxruntime
import pytest

from salema.kernels.gpus import Gpu, list_gpus
from salema.runtime.backends import openvino_session
from salema.runtime.backends.opening import open_session
from salema.runtime.doctor.cli import main
from salema.runtime.doctor.findings import Finding, ask, run_apart, unusable
from salema.runtime.doctor.machine_probes import probe_jetson, probe_video
from salema.runtime.doctor.openvino_probe import probe_openvino
from salema.runtime.doctor.report import TINY_MODEL, judge, probe_tensorrt, rtx_on, would_take
from salema.runtime.errors import BackendError
from salema.runtime.sources import pipes

GPU_NEEDS = ("NVIDIA driver", "PyCUDA", "cuda-bindings", "CUDA kernels", "GPU memory")
GPU_WORKS = [Finding(name, "works", "") for name in GPU_NEEDS]
ORT_WORKS = [Finding(name, "works", "") for name in ("ONNX Runtime", "ONNX Runtime CPU")]
OPENVINO_WORKS = Finding("OpenVINO", "works", "")
TRT_WORKS = Finding("TensorRT", "works", "")
RTX_WORKS = Finding("TensorRT-RTX", "works", "")


def gpus_here():
    try:
        return list_gpus()
    except BackendError:
        return []


@pytest.fixture(scope="module")
def report():
    """Runs the whole command in its own process; returns its JSON."""
    code = "from salema.runtime.doctor.cli import main; main()"
    ran = subprocess.run([sys.executable, "-c", code, "--json"], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def findings(report):
    named = {finding["name"]: finding for finding in report["findings"]}
    assert len(named) == len(report["findings"])
    return named


def test_what_works_has_no_advice_and_what_does_not_has_some(findings):
    assert {finding["state"] for finding in findings.values()} <= {"works", "missing", "broken"}
    for finding in findings.values():
        assert bool(finding["advice"]) == (finding["state"] != "works"), finding
        assert finding["detail"]
    for name in ("platform", "Python", "salema", "NumPy", "OpenCV", "PyAV", "FFmpeg", "H.264 encoder"):
        assert findings[name]["state"] == "works"


def test_the_cpu_provider_ran_and_the_others_are_missing_if_not_installed(findings):
    cpu = findings["ONNX Runtime CPU"]
    assert (cpu["state"], cpu["detail"]) == ("works", f"{onnxruntime.__version__}, a tiny model ran")
    for title, provider in (("CUDA", "CUDAExecutionProvider"), ("TensorRT", "TensorrtExecutionProvider")):
        missing = provider not in onnxruntime.get_available_providers()
        assert (findings[f"ONNX Runtime {title}"]["state"] == "missing") == missing


def test_the_driver_and_the_gpus_are_those_of_the_driver(findings):
    shown = [finding["detail"] for name, finding in findings.items() if re.fullmatch(r"GPU \d+", name)]
    gpus = gpus_here()
    assert (findings["NVIDIA driver"]["state"] == "works") == bool(gpus)
    assert len(shown) == len(gpus)
    assert all(f"{gpu.name}, {gpu.target}, " in text for gpu, text in zip(gpus, shown, strict=True))


def test_tensorrt_rtx_builds_for_a_gpu_that_is_not_here(findings):
    found = findings["TensorRT-RTX"]
    if find_spec("tensorrt_rtx") is None:
        assert (found["state"], "pip install 'salema[tensorrt-rtx]'" in found["advice"]) == ("missing", True)
        return
    assert found["state"] == "works"
    assert int(re.search(r"built for sm89 \((\d+) bytes\)$", found["detail"])[1]) > 1000


def test_openvino_ran_and_says_what_the_cpu_computes_in(report, findings):
    able = openvino_session.capabilities(openvino_session.ov.Core())
    ran = f"{openvino_session.VERSION}, a tiny model ran; this CPU computes in {', '.join(able)}"
    assert (findings["OpenVINO"]["state"], findings["OpenVINO"]["detail"]) == ("works", ran)
    (bf16,) = [backend for backend in report["backends"] if backend["name"] == "openvino-bf16"]
    assert bf16["runs"] == ("BF16" in able) == (findings["OpenVINO bfloat16"]["state"] == "works")
    assert bf16["advice"] == ([] if "BF16" in able else ["use --backend openvino"])


GST_LAUNCH = """#!/bin/sh
[ "$1" = --version ] && {{ echo "gst-launch-1.0 version 1.22.0"; exit 0; }}
printf '%s\\n' "$@" > {log}
{then}
"""


@pytest.mark.parametrize(
    ("then", "state", "detail", "advice"),
    [
        ("printf '\\032E'", "works", "1.22.0, a pipeline ran", ""),
        (
            "echo 'WARNING: erroneous pipeline: no element \"matroskamux\"' >&2; exit 1",
            "broken",
            'gst-launch-1.0: WARNING: erroneous pipeline: no element "matroskamux"',
            "apt-get install gstreamer1.0-plugins-base gstreamer1.0-plugins-good",
        ),
    ],
)
def test_gstreamer_is_judged_by_running_a_pipeline(tmp_path, monkeypatch, then, state, detail, advice):
    program = tmp_path / "gst-launch-1.0"
    program.write_text(GST_LAUNCH.format(log=tmp_path / "log", then=then))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (found,) = [finding for finding in probe_video() if finding.name == "gst-launch-1.0"]
    assert (found.state, found.detail, found.advice) == (state, detail, advice)
    ran = (tmp_path / "log").read_text().split()
    assert ran == ["-q", "videotestsrc", "num-buffers=1", "!", *pipes.TO_US.split()]


def test_without_gstreamer_the_doctor_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = [finding for finding in probe_video() if finding.name == "gst-launch-1.0"]
    assert (found.state, found.detail) == ("missing", "gst-launch-1.0 is not installed")
    assert found.advice == "for GStreamer pipelines as sources: apt-get install gstreamer1.0-tools"


def test_openvino_with_a_wrong_result_is_broken():
    (found,) = probe_openvino(TINY_MODEL, range(9), 35)
    assert (found.state, found.detail) == ("broken", "a tiny model gave 36 instead of 35")


def test_backends_follow_from_the_findings(report, findings):
    backends = {backend["name"]: backend for backend in report["backends"]}
    assert list(backends) == [
        "tensorrt",
        "tensorrt-rtx",
        "onnxruntime (cpu)",
        "onnxruntime (cuda)",
        "onnxruntime-tensorrt",
        "ncnn",
        "openvino",
        "openvino-bf16",
    ]
    assert backends["onnxruntime (cpu)"] == {
        "name": "onnxruntime (cpu)", "runs": True, "builds": None, "why": "", "advice": []
    }  # fmt: skip
    works = {name for name, finding in findings.items() if finding["state"] == "works"}
    assert backends["tensorrt-rtx"]["builds"] == ("TensorRT-RTX" in works)
    assert backends["tensorrt"]["builds"] == (works >= {"NVIDIA driver", "TensorRT"})
    assert backends["onnxruntime (cuda)"]["runs"] == ("ONNX Runtime CUDA" in works)
    if not gpus_here():
        runs = {name for name, backend in backends.items() if backend["runs"]}
        assert runs - {"openvino-bf16"} == {"onnxruntime (cpu)", "ncnn", "openvino"}
        assert report["auto"] == (
            "ncnn where the model's folder holds model.ncnn.param, else OpenVINO for a model exported --for openvino,"
            " else ONNX Runtime on the CPU"
        )
        driver = findings["NVIDIA driver"]
        assert backends["tensorrt"]["why"] == f"NVIDIA driver: {driver['detail']}"
        assert backends["tensorrt"]["advice"][0] == driver["advice"]


def test_the_text_says_the_same(cli, model, findings):
    with open_session(model) as session:
        description = session.description
    ran = cli(main, "--model", model)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    for name in ("ONNX Runtime CPU", "NVIDIA driver", "OpenCV", "TensorRT"):
        finding = findings[name]
        place = next(i for i, line in enumerate(lines) if re.match(rf"  \w+ +{name}  ", line))
        assert lines[place].split() == [finding["state"], *name.split(), *finding["detail"].split()]
        assert lines[place + 1].strip() == f"-> {finding['advice']}" or finding["state"] == "works"
    assert "  can run    onnxruntime (cpu)" in lines
    assert "  can run    ncnn" in lines
    assert f"  works    model  {description}" in lines
    assert lines[-1] == f"auto takes {description}"


def test_a_model_that_can_not_be_opened_is_reported_and_exits_with_1(cli, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    ran = cli(main, "--model", tmp_path, "--json")
    report = json.loads(ran.out)
    *_, opened = report["findings"]
    assert (ran.code, opened["name"], opened["state"]) == (1, "model", "broken")
    assert opened["detail"].startswith(f"{tmp_path / 'model.onnx'}: ONNX Runtime")
    assert opened["advice"] == "export it again"
    assert report["auto"] == "nothing: the model can't be opened"


def test_without_onnx_runtime_ncnn_openvino_and_a_gpu_nothing_runs(tmp_path):
    """Modules of the same names, which can't be imported, hide the real ones."""
    for name in ("onnxruntime", "ncnn", "openvino"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('libsomething.so: not there')\n")
    code = "from salema.runtime.doctor.cli import main; main()"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert (ran.returncode, ran.stderr) == (1, "")
    found = "ONNX Runtime can't be imported (libsomething.so: not there)\n           -> pip install 'salema[cpu]'"
    assert f"  broken   ONNX Runtime  {found}" in ran.stdout
    found = "OpenVINO can't be imported (libsomething.so: not there)\n           -> pip install 'salema[openvino]'"
    assert f"  broken   OpenVINO  {found}" in ran.stdout
    assert "  broken   ncnn  ncnn can't be imported (libsomething.so: not there)" in ran.stdout
    assert ran.stdout.endswith("\nauto takes nothing\n")


def test_help_imports_none_of_the_tried_libraries():
    code = """
import sys
sys.argv = ["salema-doctor", "--help"]
from salema.runtime.doctor.cli import main
try:
    main()
except SystemExit:
    tried = {"numpy", "cv2", "av", "onnxruntime", "openvino", "tensorrt_rtx", "multiprocessing"}
    print(sorted(tried & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "--model" in ran.stdout
    assert ran.stdout.endswith("\n[]\n")


@pytest.mark.parametrize(
    ("probe", "detail"),
    [
        (partial(int, "x"), "ValueError: invalid literal for int() with base 10: 'x'"),
        (partial(os.abort), "crashed (SIGABRT)"),
        (partial(os._exit, 3), "crashed (exit code 3)"),
        (partial(time.sleep, 60), "no answer within 0.5 s"),
    ],
)
def test_a_probe_that_fails_is_a_finding(capfd, probe, detail):
    (found,) = run_apart("thing", probe, 0.5 if probe.func is time.sleep else 60)
    assert (found.name, found.state, found.detail) == ("thing", "broken", detail)
    assert found.advice
    assert capfd.readouterr() == ("", "")


def test_a_probe_s_output_is_not_in_the_report(capfd):
    assert run_apart("thing", partial(print, "noise")) is None
    assert capfd.readouterr() == ("", "")


def test_tensorrt_is_not_used_without_a_driver(tmp_path, monkeypatch):
    """Uses a stand-in for TensorRT 11, which crashes the process if there is no driver."""
    (tmp_path / "tensorrt.py").write_text(
        "import os\n__version__ = '11.4.0'\nclass ILogger: pass\ndef Builder(logger): os.abort()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = run_apart("TensorRT", partial(probe_tensorrt, "tensorrt"))
    alone = "11.4.0 neither builds nor runs without a GPU"
    assert (found.state, found.detail) == ("broken", "crashed (SIGABRT)" if gpus_here() else alone)


@pytest.mark.parametrize(
    ("capability", "state"), [((8, 9), "works"), ((12, 1), "works"), ((8, 7), "missing"), ((9, 0), "missing")]
)
def test_tensorrt_rtx_knows_some_gpus(capability, state):
    found = rtx_on(Gpu(0, "Some GPU", capability, 8 << 30, integrated=False))
    assert found.state == state
    assert f"sm{capability[0]}{capability[1]}" in found.detail
    assert found.advice == ("" if state == "works" else "use TensorRT")


@pytest.mark.parametrize(
    ("found", "auto"),
    [
        ([], "nothing"),
        (ORT_WORKS, "ONNX Runtime on the CPU"),
        (
            [*ORT_WORKS, OPENVINO_WORKS],
            "OpenVINO for a model exported --for openvino, else ONNX Runtime on the CPU",
        ),
        (
            [*GPU_WORKS, *ORT_WORKS, OPENVINO_WORKS, Finding("ONNX Runtime CUDA", "works", "")],
            "ONNX Runtime on CUDA",
        ),
        ([*GPU_WORKS, *ORT_WORKS, Finding("ONNX Runtime CUDA", "works", "")], "ONNX Runtime on CUDA"),
        (
            [*GPU_WORKS, *ORT_WORKS, TRT_WORKS],
            "TensorRT where the model's folder holds model.engine, else ONNX Runtime on the CPU",
        ),
        (
            [*GPU_WORKS, RTX_WORKS, Finding("TensorRT-RTX on GPU 0", "works", "")],
            "TensorRT-RTX where the model's folder holds model.rtx.engine",
        ),
        (
            [*GPU_WORKS, *ORT_WORKS, RTX_WORKS, rtx_on(Gpu(0, "Orin", (8, 7), 8 << 30, integrated=True))],
            "ONNX Runtime on the CPU",
        ),
        ([*GPU_WORKS[:-1], Finding("GPU memory", "broken", ""), TRT_WORKS], "nothing"),
        (
            [*ORT_WORKS, Finding("ncnn", "works", "")],
            "ncnn where the model's folder holds model.ncnn.param, else ONNX Runtime on the CPU",
        ),
        ([Finding("ncnn", "works", "")], "ncnn where the model's folder holds model.ncnn.param"),
        (
            [*GPU_WORKS, *ORT_WORKS, Finding("ONNX Runtime CUDA", "works", ""), Finding("ncnn", "works", "")],
            "ONNX Runtime on CUDA",
        ),
    ],
)
def test_what_auto_takes_on_other_machines(found, auto):
    assert would_take(judge(found)) == auto


def test_a_backend_says_the_first_reason_and_every_advice_once():
    driver = Finding("NVIDIA driver", "missing", "none", "get a driver")
    lacking = Finding("TensorRT", "missing", "not there", "pip install tensorrt")
    memory = [Finding(name, "missing", "not there", "pip install cuda") for name in ("PyCUDA", "cuda-bindings")]
    tensorrt, rtx, *_ = judge([driver, lacking, *memory, RTX_WORKS])
    assert (tensorrt.runs, tensorrt.builds, tensorrt.why) == (False, False, "NVIDIA driver: none")
    assert tensorrt.advice == ("get a driver", "pip install tensorrt", "pip install cuda")
    assert (rtx.runs, rtx.builds) == (False, True)


def test_our_errors_become_detail_and_advice():
    found = unusable("it", BackendError("no GPU is visible; see nvidia-smi [no CUDA-capable device is detected]"))
    assert found == Finding("it", "broken", "no GPU is visible [no CUDA-capable device is detected]", "see nvidia-smi")


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Puts shell scripts in front of the system's programs."""

    def put(**scripts):
        for name, script in scripts.items():
            path = tmp_path / "bin" / name.replace("_", "-")
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)

    return put


def test_a_jetson_shows_board_release_and_power_mode(tmp_path, programs):
    (tmp_path / "release").write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n")
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    programs(dpkg_query="echo 6.2+b77", nvpmodel="printf 'NV Power Mode: MODE_15W\\n0\\n'")
    assert probe_jetson(tmp_path / "release", tmp_path / "model") == [
        Finding("board", "works", "NVIDIA Jetson Orin Nano Developer Kit"),
        Finding("L4T", "works", "36.4.3"),
        Finding("JetPack", "works", "6.2+b77"),
        Finding("power mode", "works", "MODE_15W"),
    ]


def test_a_jetson_in_a_container_says_what_it_does_not_see(tmp_path, programs):
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson AGX Orin Developer Kit\0")
    programs(
        dpkg_query="echo 'dpkg-query: no packages found matching nvidia-jetpack' >&2; exit 1",
        nvpmodel="echo 'NVPM ERROR: no such device' >&2; exit 255",
    )
    board, l4t, jetpack, mode = probe_jetson(tmp_path / "release", tmp_path / "model")
    assert (board.state, l4t.state, jetpack.state, mode.state) == ("works", "missing", "missing", "broken")
    assert jetpack.detail == "dpkg-query: no packages found matching nvidia-jetpack"
    assert jetpack.advice == "sudo apt-get install nvidia-jetpack"
    assert mode.detail == "nvpmodel: NVPM ERROR: no such device"


def test_another_machine_has_no_jetson_section(tmp_path):
    (tmp_path / "model").write_bytes(b"Raspberry Pi 5 Model B\0")
    assert probe_jetson(tmp_path / "release", tmp_path / "model") is None


def test_a_program_that_is_not_there_is_missing():
    found = ask("no-program-has-this-name", "-q")
    assert (found.state, found.detail) == ("missing", "no-program-has-this-name is not installed")
