"""What the driver finds: our own code with one thing wrong, in a child process; nothing of it may stay unseen."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from host_driver.calls import add_fault, left, take_faults
from host_driver.constants import open_constants, step_and_check

from salema.kernels import arrays
from salema.kernels.device import launcher
from salema.kernels.device.cuda import CudaBuffer, CudaDevice, CudaGraph
from salema.kernels.device.launcher import CudaLauncher
from salema.kernels.ops.ema import ema_update
from salema.runtime.stream import SaliencyStream

pytestmark = pytest.mark.gpu
UPLOAD, CALL = CudaDevice.upload, CudaDevice.call
kept = []


def in_child(work):
    """What a copy of this process tells: its error, the driver's faults, and what went to standard error."""
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: other threads, which the copy has no need of
        child = os.fork()
    if not child:
        os.dup2(theirs, 2)
        error = "no error"
        try:
            work()
        except BaseException as raised:  # noqa: BLE001 - the parent is told
            error = repr(raised)
        os.write(theirs, f"{error}\n{take_faults()}{left()}".encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


def ordinary():
    """A session: two plain steps, a recording, replays; then it is closed."""
    with open_constants() as session:
        step_and_check(SaliencyStream(session))


def shifted(nbytes):
    def upload(device, target, source):
        UPLOAD(device, target + nbytes, source)

    return upload


def call_with(change):
    def call(device, function, grid, block, arguments):
        CALL(device, function, grid, block, change(list(arguments)))

    return call


def from_pageable(device, nbytes, *, mapped):
    return np.zeros(nbytes, np.uint8), None


def taking_memory(device, target, source):
    device.allocate(256)
    UPLOAD(device, target, source)


def upload_twice_in_place(device, target, source):
    UPLOAD(device, target, source)
    device.copy(target, target + 1, source.nbytes - 1)


def keep(device):
    kept.append(device)


def far(arguments):
    return [arguments[0] + np.uint64(1 << 40), *arguments[1:]]


def of_the_host(arguments):
    kept.append(np.zeros(1 << 16, np.uint8))
    return [np.uint64(kept[-1].ctypes.data), *arguments[1:]]


def too_many(arguments):
    """The last but one of `ema_update` is how many elements it updates."""
    return [*arguments[:-2], np.uint32(arguments[-2] + 4096), arguments[-1]]


# What is replaced, by what, and what must be told.
MUTATIONS = {
    "a wrong pointer": (CudaDevice, "upload", shifted(1 << 40), "an address that is not of the device's memory"),
    "a copy beyond the end": (CudaDevice, "upload", shifted(8), r"bytes from 8 on of a device memory of"),
    "a wrong pointer to a kernel": (CudaDevice, "call", call_with(far), "ema_update: an address that is not of the"),
    "a host's pointer to a kernel": (CudaDevice, "call", call_with(of_the_host), "ema_update: an address that is not"),
    "a kernel beyond the end": (CudaDevice, "call", call_with(too_many), "ema_update touched what is nobody's"),
    "an argument of another size": (
        launcher._FORMATS,
        np.dtype(np.uint32),
        "L",
        "bytes of arguments, and it takes",
    ),
    "copies from pageable memory": (CudaDevice, "allocate_host", from_pageable, "host memory that is not page-locked"),
    "a missing push": (CudaDevice, "active", contextlib.nullcontext, "invalid device context"),
    "a missing wait": (CudaDevice, "synchronize", lambda _: None, "Arrays are not equal"),
    "memory taken while recording": (
        CudaDevice,
        "upload",
        taking_memory,
        "not permitted when stream is capturing",
    ),
    "an overlapping copy": (CudaDevice, "upload", upload_twice_in_place, "source and target overlap"),
    "a leak": (
        CudaBuffer,
        "free",
        lambda buffer: kept.append(buffer._allocation),
        "left in the context: device memory of",
    ),
    "a kernel kept": (CudaLauncher, "close", lambda self: kept.append(self._loaded), "left in the context: module"),
    "a device kept": (CudaDevice, "close", keep, "no error\n.*context$"),
    "a graph kept": (CudaGraph, "__del__", lambda graph: None, "left in the context: instantiated graph"),
}


def test_unchanged_code_passes():
    assert in_child(ordinary) == "no error\n"


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_fault_is_caught(name, monkeypatch):
    where, what, change, message = MUTATIONS[name]
    with monkeypatch.context() as patch:
        (patch.setitem if isinstance(where, dict) else patch.setattr)(where, what, change)
        told = in_child(ordinary)
    assert re.search(message, told), told


def test_pageable_memory_is_found_while_recording():
    def work():
        device = CudaDevice()
        with device.active():
            buffer = device.allocate(64)
            device.capture(lambda: device.upload(buffer.address, np.zeros(64, np.uint8)))

    told = in_child(work)
    assert "operation not permitted when stream is capturing" in told
    assert "cuMemcpyHtoDAsync_v2: host memory that is not page-locked" in told


def test_memory_that_a_graph_uses_is_found_freed():
    def work():
        with open_constants() as session:
            step_and_check(SaliencyStream(session))
            with session._device.active():
                session._tensors["saliency"]._buffer.free()
            step_and_check(SaliencyStream(session))

    assert "device memory of 24576 bytes used after it was freed" in in_child(work)


def test_a_graph_destroyed_without_a_context_is_found(monkeypatch):
    def work():
        device = CudaDevice()
        with device.active():
            graph = device.capture(lambda: None)
        del graph

    assert in_child(work) == "no error\n"
    monkeypatch.setattr(CudaGraph, "__del__", lambda graph: graph._driver.cuGraphExecDestroy(graph.handle))
    assert "cuGraphExecDestroy: no context is current in this thread" in in_child(work)


def test_a_kernel_that_writes_a_little_too_far_is_found():
    """The memory's end is a page's end but for the alignment of 256 bytes, which the driver looks at."""

    def work():
        device = CudaDevice()
        kernels = CudaLauncher(device)
        with device.active():
            weight, buffer = arrays.place_array(device, np.ones(1, np.float32), device)
            buffers = [device.allocate(16 * 4) for _ in range(3)]
            shape = (1, 1, 1, 17)
            placed = [arrays.Array(each.address, shape, np.dtype(np.float32), device) for each in buffers]
            ema_update(kernels, placed[0], placed[1], weight, placed[2])
            device.synchronize()
            kept.append((buffer, buffers))

    assert "ema_update: it wrote beyond the ends of a device memory of 64 bytes" in in_child(work)


def test_memory_freed_twice_is_found():
    def work():
        device = CudaDevice()
        with device.active():
            address = device.allocate(64).address
            assert int(device._driver.cuMemFree(address)[0])

    assert "cuMemFree_v2: device memory of 64 bytes was freed before" in in_child(work)


def test_a_thread_that_ends_with_a_context_is_found():
    def work():
        device = CudaDevice()
        pointer = device._driver.CUcontext(device._context.handle)
        thread = threading.Thread(target=lambda: device._driver.cuCtxPushCurrent(pointer))
        thread.start()
        thread.join()
        for _ in range(1000):  # Python's join may come before the thread's last moments
            if told := take_faults():
                add_fault(told.strip())
                break
            time.sleep(0.01)
        device.close()

    assert in_child(work) == "no error\na thread ended with 1 contexts on its stack\n"


def test_a_stream_of_another_gpu_is_found():
    def work():
        first, second = CudaDevice(0), CudaDevice(1)
        with second.active():
            buffer = second.allocate(64)
            source, _ = second.allocate_host(64, mapped=False)
            first.upload(buffer.address, source)

    assert "cuMemcpyHtoDAsync_v2: another context's stream" in in_child(work)


def test_memory_of_another_gpu_is_found():
    def work():
        first, second = CudaDevice(0), CudaDevice(1)
        with second.active():
            buffer = second.allocate(64)
        with first.active():
            source, _ = first.allocate_host(64, mapped=False)
            first.upload(buffer.address, source)

    assert "cuMemcpyHtoDAsync_v2: device memory of 64 bytes of another context" in in_child(work)


def test_a_host_address_is_not_a_mapped_one():
    def work():
        device = CudaDevice()
        with device.active():
            array, address = device.allocate_host(64, mapped=True)
            array[:] = 7
            device.copy(array.ctypes.data, address, 64)

    assert "an address that is not of the device's memory" in in_child(work)


AT_THE_END = """
from salema.kernels.device.cuda import CudaDevice
device = CudaDevice()
CudaDevice.close = lambda _: None
"""


def test_objects_left_at_exit_are_listed():
    ran = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 97
    assert "left when the process ended: context\n" in ran.stderr
