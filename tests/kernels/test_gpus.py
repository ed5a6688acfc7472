import os
import subprocess
import sys

import pytest

from salema.kernels.errors import BackendError
from salema.kernels.gpus import Gpu, driver_cuda_version, list_gpus, pci_bus_id

CODE = """
from salema.kernels.errors import BackendError
from salema.kernels.gpus import list_gpus
try:
    print(list_gpus())
except BackendError as error:
    print(error)
"""


def test_hidden_or_missing_gpus_are_told_in_one_sentence():
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment)
    assert done.stderr == ""
    [line] = done.stdout.splitlines()
    assert line.startswith(("no NVIDIA driver that is new enough was found", "no NVIDIA GPU is visible"))
    assert "nvidia-smi" in line


def test_a_driver_library_that_is_none(tmp_path, monkeypatch):
    import ctypes

    monkeypatch.setattr(ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(f"{name}: invalid ELF header")))
    for ask in (list_gpus, driver_cuda_version, lambda: pci_bus_id(0)):
        with pytest.raises(BackendError, match=r"no NVIDIA driver .*\[libcuda\.so\.1: invalid ELF header\]"):
            ask()


def test_a_target_is_named_as_the_command_takes_it():
    assert Gpu(0, "Orin", (8, 7), 1, integrated=True).target == "sm87"
    assert Gpu(0, "RTX 5090", (12, 0), 1, integrated=False).target == "sm120"


@pytest.mark.gpu
def test_the_drivers_list_of_gpus_equals_pycudas():
    import pycuda.driver as pycuda

    pycuda.init()
    gpus = list_gpus()
    assert len(gpus) == pycuda.Device.count()
    for gpu in gpus:
        device = pycuda.Device(gpu.index)
        assert gpu.name == device.name()
        assert gpu.compute_capability == device.compute_capability()
        assert gpu.memory_bytes == device.total_memory()
        assert pci_bus_id(gpu.index).lower() == device.pci_bus_id().lower()
        assert gpu.integrated == bool(device.get_attribute(pycuda.device_attribute.INTEGRATED))
    assert float(driver_cuda_version()) >= 11
