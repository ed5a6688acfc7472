"""Where what `salema-bench` compares runs."""

from contextlib import ExitStack

import pytest

from salema.benchmarks.speed import cases
from salema.benchmarks.speed.cases import Plan, open_cases, settle_device
from salema.kernels.gpus import Gpu
from salema.runtime.errors import UsageError


def test_on_a_machine_with_a_gpu_that_the_model_does_not_run_on_all_runs_on_the_cpu(model, tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "list_gpus", lambda: [Gpu(0, "GPU", (8, 9), 1, integrated=False)])
    plan = Plan((model,), ("onnxruntime",), ("pytorch",))
    assert plan.torch_device == "cuda:0"
    settled = settle_device(plan)  # this ONNX Runtime has no CUDA
    assert (settled.gpu, settled.torch_device) == (None, "cpu")
    mixed = Plan((model,), ("onnxruntime",))
    with ExitStack() as stack, pytest.raises(UsageError, match="onnxruntime runs on the CPU, .*; give --device cpu"):
        open_cases(mixed, None, stack, tmp_path)
