"""An engine for GPU sessions on the driver: ONNX Runtime on the CPU, which a stream's work calls."""

import ctypes

import numpy as np
from host_device import HostEngine
from host_driver.calls import add_fault, bytes_on_device, call_in_stream

from salema.kernels.device.cuda import CudaDevice
from salema.kernels.device.launcher import CudaLauncher
from salema.runtime.gpu.split_engine import SplitEngine

_HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Queue:
    """What a `HostEngine` needs of a device, for a `CudaDevice`: cuLaunchHostFunc puts its work on the stream."""

    recording = None

    def __init__(self, device):
        self._kept = []
        self.stream, self.integrated = device.stream, device.integrated

    def put(self, work):
        def run(_):
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - nobody else would see it
                add_fault(f"the engine failed: {error!r}")

        function = _HostFunction(run)
        self._kept.append(function)  # a graph may run it at any time
        call_in_stream(self.stream, function)

    @staticmethod
    def at(address, nbytes):
        return np.frombuffer(bytes_on_device(address, nbytes), np.uint8)


def open_engine(folder, kind=None, device_index=0):
    """As `trt_session.open_engine`, of the folder's ONNX files."""
    device = CudaDevice(device_index)
    launcher = CudaLauncher(device)
    parts = [HostEngine(path, Queue(device)) for path in folder.onnx_files()]
    return (parts[0] if len(parts) == 1 else SplitEngine(*parts, device, launcher)), device, launcher
