import re
import sys
from functools import partial
from importlib.util import find_spec

import onnxruntime
import pytest

from salema.kernels.gpus import Gpu, list_gpus
from salema.runtime.backends import openvino_session
from salema.runtime.doctor import report
from salema.runtime.doctor.findings import Finding, run_apart
from salema.runtime.doctor.openvino_probe import probe_openvino
from salema.runtime.doctor.report import TINY_MODEL, judge, probe_tensorrt, rtx_on, would_take
from salema.runtime.errors import BackendError

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


def test_only_a_finding_that_fails_has_advice(findings):
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


def test_onnxruntimes_tensorrt_is_tried_as_a_session_does_and_the_advice_names_its_version(tmp_path, monkeypatch):
    (tmp_path / "tensorrt_libs.py").write_text("")  # the wheel's package, which loads the libraries when it is imported
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(report, "find_no_gpu", lambda: None)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    found = report._try_provider(onnxruntime, "TensorRT", "TensorrtExecutionProvider")
    assert sys.modules.pop("tensorrt_libs").__file__ == str(tmp_path / "tensorrt_libs.py")
    assert found.state == "broken"
    assert found.advice == "install TensorRT 10, whose libnvinfer.so.10 it is linked to: pip install 'tensorrt<11'"


def test_openvino_ran_and_says_what_the_cpu_computes_in(report, findings):
    able = openvino_session.capabilities(openvino_session.ov.Core())
    ran = f"{openvino_session.VERSION}, a tiny model ran; this CPU computes in {', '.join(able)}"
    assert (findings["OpenVINO"]["state"], findings["OpenVINO"]["detail"]) == ("works", ran)
    (bf16,) = [backend for backend in report["backends"] if backend["name"] == "openvino-bf16"]
    assert bf16["runs"] == ("BF16" in able) == (findings["OpenVINO bfloat16"]["state"] == "works")
    assert bf16["advice"] == ([] if "BF16" in able else ["use --backend openvino"])


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
            "the fastest on this CPU of ONNX Runtime, OpenVINO, ncnn, after a short trial of the model"
        )
        driver = findings["NVIDIA driver"]
        assert backends["tensorrt"]["why"] == f"NVIDIA driver: {driver['detail']}"
        assert backends["tensorrt"]["advice"][0] == driver["advice"]


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
            "the fastest on this CPU of ONNX Runtime, OpenVINO, after a short trial of the model",
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
            "the fastest on this CPU of ONNX Runtime, ncnn, after a short trial of the model",
        ),
        ([Finding("ncnn", "works", "")], "ncnn on the CPU"),
        (
            [*GPU_WORKS, *ORT_WORKS, Finding("ONNX Runtime CUDA", "works", ""), Finding("ncnn", "works", "")],
            "ONNX Runtime on CUDA",
        ),
    ],
)
def test_the_backend_that_auto_takes_on_other_machines(found, auto):
    assert would_take(judge(found)) == auto


def test_a_backend_says_the_first_reason_and_every_advice_once():
    driver = Finding("NVIDIA driver", "missing", "none", "get a driver")
    lacking = Finding("TensorRT", "missing", "not there", "pip install tensorrt")
    memory = [Finding(name, "missing", "not there", "pip install cuda") for name in ("PyCUDA", "cuda-bindings")]
    tensorrt, rtx, *_ = judge([driver, lacking, *memory, RTX_WORKS])
    assert (tensorrt.runs, tensorrt.builds, tensorrt.why) == (False, False, "NVIDIA driver: none")
    assert tensorrt.advice == ("get a driver", "pip install tensorrt", "pip install cuda")
    assert (rtx.runs, rtx.builds) == (False, True)
