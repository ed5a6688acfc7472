"""A device over host memory: the interface of `salema.kernels.device.interface`, strict where CUDA is.

Work on the stream is queued and done only when somebody waits, so a missing wait shows as old data; memory comes
filled with NaN, and every address is looked up; recording does nothing but record. The engine is an ONNX Runtime
session on the CPU that reads and writes at the addresses it was given.
"""

import bisect
import time
from contextlib import contextmanager

import numpy as np
import onnxruntime as ort
from host_kernels import HostLauncher

from salema.runtime.gpu.split_engine import SplitEngine
from salema.runtime.model_folder import look_up
from salema.runtime.onnx_metadata import read_spec


class HostBuffer:
    def __init__(self, device, nbytes):
        self._device = device
        self._memory = np.full(max(nbytes, 1) + 256, 0xFF, np.uint8)
        start = -self._memory.ctypes.data % 256
        self.address = self._memory.ctypes.data + start
        self.nbytes = nbytes
        device.register(self.address, self._memory[start : start + nbytes])

    def free(self):
        self._device.unregister(self.address)


class Graph:
    def __init__(self, work):
        self.work = work


class HostDevice:
    name = "host"
    stream = 7

    def __init__(self, *, integrated=False):
        self.integrated = integrated
        self.pieces = {}
        self.queue = []
        self.recording = None
        self.depth = 0
        self.closed = False
        self.launches = 0

    @contextmanager
    def active(self):
        assert not self.closed
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def register(self, address, memory):
        assert self.depth, "memory taken outside active()"
        assert self.recording is None, "memory can't be taken while recording"
        self.pieces[address] = memory

    def unregister(self, address):
        assert self.depth
        del self.pieces[address]

    def at(self, address, nbytes):
        """The bytes at an address, which must lie in one piece of memory that is still there."""
        starts = sorted(self.pieces)
        start = starts[bisect.bisect_right(starts, address) - 1]
        memory = self.pieces[start][address - start : address - start + nbytes]
        assert len(memory) == nbytes, "outside of what was allocated"
        return memory

    def put(self, work):
        assert self.depth, "work outside active()"
        (self.queue if self.recording is None else self.recording).append(work)

    def allocate(self, nbytes):
        return HostBuffer(self, nbytes)

    def allocate_host(self, nbytes, *, mapped):
        array = np.full(nbytes, 0xFF, np.uint8)
        if mapped:
            self.register(array.ctypes.data, array)
        return array, array.ctypes.data if mapped else None

    def upload(self, target, source):
        self.put(lambda: np.copyto(self.at(target, source.nbytes), source))

    def download(self, target, source):
        self.put(lambda: np.copyto(target, self.at(source, target.nbytes)))

    def copy(self, target, source, nbytes):
        self.put(lambda: np.copyto(self.at(target, nbytes), self.at(source, nbytes)))

    def synchronize(self):
        assert self.depth
        assert self.recording is None, "waiting can't be recorded"
        queue, self.queue = self.queue, []
        for work in queue:
            work()

    def capture(self, work):
        assert self.recording is None
        self.recording = []
        try:
            work()
            return Graph(self.recording)
        finally:
            self.recording = None

    def launch(self, graph):
        self.launches += 1
        for work in graph.work:
            self.put(work)

    def elapsed_ms(self, work):
        self.synchronize()
        start = time.perf_counter()
        work()
        self.synchronize()
        return 1e3 * (time.perf_counter() - start)

    def close(self):
        self.closed = True


def open_host(folder, device, **options):
    """A folder's model as a `StepEngine`: whole, or in two parts with the kernel's own source between them."""
    parts = [HostEngine(path, device, **options) for path in look_up(folder).onnx_files()]
    return parts[0] if len(parts) == 1 else SplitEngine(parts[0], parts[1], device, QueuedLauncher(device))


class QueuedLauncher(HostLauncher):
    """Kernels built for the CPU, on the device's stream."""

    def __init__(self, device):
        super().__init__()
        self._device = device

    def launch(self, *arguments, **options):
        self._device.put(lambda: super(QueuedLauncher, self).launch(*arguments, **options))


class HostEngine:
    """A `StepEngine` over ONNX Runtime on the CPU, of a whole step or a part."""

    updates_in_place = False
    note = ""

    def __init__(self, model, device, *, batch_range=(1, 8), capturable=True):
        self.spec = read_spec(model)
        self.batch_range = (self.spec.batch,) * 2 if self.spec.batch else batch_range
        self._device = device
        self._capturable = capturable
        self._session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self._addresses = {}
        self._streams = None
        self.plain_runs = 0

    def set_batch(self, streams):
        self._streams = streams

    def bind(self, name, address):
        assert name in self.spec.tensor_shapes
        assert address % 256 == 0 or self._device.integrated
        self._addresses[name] = address

    def capturable(self, stream):
        return self._capturable

    def enqueue(self, stream):
        assert stream == self._device.stream
        assert set(self._addresses) == set(self.spec.tensor_shapes), "a tensor is not bound"
        addresses, streams = dict(self._addresses), self._streams
        self.plain_runs += self._device.recording is None
        self._device.put(lambda: self._run(addresses, streams))

    def close(self):
        self._session = None

    def _view(self, name, addresses, streams):
        shape = (streams, *self.spec.tensor_shapes[name][1:])
        dtype = np.dtype(self.spec.tensor_dtype(name))
        return self._device.at(addresses[name], int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)

    def _run(self, addresses, streams):
        inputs = {name: self._view(name, addresses, streams) for name in self.spec.input_names}
        outputs = self._session.run(self.spec.output_names, inputs)
        for name, value in zip(self.spec.output_names, outputs, strict=True):
            self._view(name, addresses, streams)[:] = value
