import json
import os
import re
import subprocess
import sys

from salema.runtime.backends.opening import open_session
from salema.runtime.doctor.cli import main


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
