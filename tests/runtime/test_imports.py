import subprocess
import sys


def test_the_runtime_runs_where_torch_and_onnx_are_not_installed(model):
    """A fresh interpreter in which importing torch, onnx and what belongs to them fails."""
    code = f"""
import sys
for name in ("torch", "onnx", "onnxscript", "safetensors", "pooch"):
    sys.modules[name] = None  # makes `import name` raise ImportError
import numpy as np
import salema.runtime, salema.runtime.cli.run, salema.runtime.run.pipeline, salema.runtime.run.videos
with salema.runtime.load({str(model)!r}) as stream:
    print(stream.step(np.zeros((48, 64, 3), np.uint8)).shape)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "(64, 96)\n", "")


def test_maps_are_scored_where_pyav_is_not_installed():
    code = """
import sys
sys.modules["av"] = None
import salema.benchmarks.scores.cli, salema.benchmarks.scores.report, salema.benchmarks.maps.predictions
import salema.benchmarks.scores.scoring, salema.benchmarks.scores.submission, salema.runtime.cli.opening
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_without_a_backend_the_sentence_says_how_to_install_one(model, small_clip):
    code = f"""
import sys
sys.modules |= dict.fromkeys(["onnxruntime", "openvino", "ncnn"])
from salema.runtime.cli.run import main
sys.argv = ["salema-run", {str(small_clip)!r}, "--model", {str(model)!r}]
main()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.startswith("salema-run: ONNX Runtime can't be imported")
    assert "pip install 'salema[cpu]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_without_torch_export_says_how_to_install_it():
    code = """
import sys
sys.modules["torch"] = None
from salema.export.cli import main
sys.argv = ["salema-export", "--weights", "seeded"]
main()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.endswith("install it with: pip install 'salema[cpu,export]'\n")
    assert "Traceback" not in ran.stderr
