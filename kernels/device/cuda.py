"""The CUDA device: memory, stream and events through PyCUDA, graphs through cuda-bindings on the same handles.

PyCUDA has no stream capture. Source: CUDA Driver API, "Stream Management" and "Graph Management"; PyCUDA 2024 to 2026.
"""

from __future__ import annotations

import atexit
import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salema.kernels.errors import BackendError, explain, installed
from salema.kernels.gpus import list_gpus

_INSTALL = "pip install 'salema[cuda]' (PyCUDA is compiled, and needs the CUDA toolkit for that)"
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: else other work on the default stream makes a recording fail
_open: weakref.WeakSet[CudaDevice] = weakref.WeakSet()


_recording = threading.Lock()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Has Python look for no garbage: CUDA drops a recording if GPU memory is freed meanwhile."""
    with _recording:  # else the first to end would turn it on for the others
        enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if enabled:
                gc.enable()


@atexit.register
def _close_all() -> None:
    """Closes devices before Python's end, where PyCUDA would print an error for a context that is left."""
    for device in list(_open):
        device.close()


def _import_libraries() -> tuple[Any, Any]:
    """Returns `pycuda.driver` and cuda-bindings' `driver`."""
    with installed(_INSTALL, "PyCUDA or cuda-bindings"):
        import pycuda.driver as pycuda  # noqa: PLC0415 - needs the driver, which list_gpus() has loaded by now
        from cuda.bindings import driver  # noqa: PLC0415
    return pycuda, driver


class CudaBuffer:
    """Device memory."""

    def __init__(self, device: CudaDevice, allocation: Any, nbytes: int) -> None:
        self._device = device  # keeps the device alive
        self._allocation = allocation
        self.address = int(allocation)
        self.nbytes = nbytes

    def free(self) -> None:
        """See `Buffer.free`."""
        self._allocation.free()


class CudaGraph:
    """A recorded graph, freed together with this object."""

    def __init__(self, device: CudaDevice, driver: Any, handle: Any) -> None:
        self._device, self._driver = device, driver
        self.handle = handle

    def __del__(self) -> None:
        if not self._device.closed:  # else it was freed with the context
            with suppress(BackendError), self._device.active():  # whoever drops it last may have no context current
                self._driver.cuGraphExecDestroy(self.handle)


class CudaDevice:
    """A `Device` over one GPU: its primary context, which PyTorch and ONNX Runtime share, and a stream of its own."""

    _context: Any = None
    _closed_by: int | None = None

    def __init__(self, index: int = 0) -> None:
        """Opens the GPU; `index` is its number in CUDA.

        Raises:
            BackendError: there is no driver, or no GPU of that number.
            MissingDependencyError: PyCUDA or cuda-bindings is not installed.
        """
        gpus = list_gpus()
        if not 0 <= index < len(gpus):
            raise BackendError(f"--device cuda:{index}: {explain('invalid device ordinal')}")
        self.gpu = gpus[index]
        self.name = self.gpu.name
        self.integrated = self.gpu.integrated
        self._pycuda, self._driver = _import_libraries()
        with self._calls("opening the GPU"):
            self._pycuda.init()
            self._context = self._pycuda.Device(index).retain_primary_context()
        with self.active():
            self._stream = self._pycuda.Stream(_NON_BLOCKING)
            flags = self._pycuda.event_flags
            # Sleeping leaves a Jetson's CPU free; spinning is some microseconds faster.
            waiting = flags.BLOCKING_SYNC if self.integrated else flags.DEFAULT
            self._done = self._pycuda.Event(flags.DISABLE_TIMING | waiting)
        self.stream = int(self._stream.handle)
        _open.add(self)

    @property
    def closed(self) -> bool:
        """Whether the device was closed."""
        return self._context is None

    def __del__(self) -> None:
        self.close()

    @contextmanager
    def active(self) -> Iterator[None]:
        """See `Device.active`."""
        if self._context is None:
            raise BackendError("the GPU was closed; load the model again")
        context = self._context  # close() may be called inside the block
        with self._calls("entering the GPU's context"):
            context.push()
        try:
            with self._calls("running on the GPU"):
                yield
        finally:
            self._leave(context)

    def _leave(self, context: Any) -> None:
        """Takes the context off this thread's stack, unless closing has done so."""
        if not self.closed:
            context.pop()
        elif self._closed_by != threading.get_ident():
            with suppress(self._pycuda.Error):  # PyCUDA takes it off the driver's stack, and misses it on its own
                context.pop()

    def allocate(self, nbytes: int) -> CudaBuffer:
        """See `Device.allocate`."""
        return CudaBuffer(self, self._pycuda.mem_alloc(max(nbytes, 1)), nbytes)

    def allocate_host(self, nbytes: int, *, mapped: bool) -> tuple[NDArray[np.uint8], int | None]:
        """See `Device.allocate_host`."""
        flags = self._pycuda.host_alloc_flags.DEVICEMAP if mapped else 0
        array = self._pycuda.pagelocked_empty(max(nbytes, 1), np.uint8, mem_flags=flags)
        return array[:nbytes], int(array.base.get_device_pointer()) if mapped else None

    def upload(self, target: int, source: NDArray[np.uint8]) -> None:
        """See `Device.upload`."""
        self._pycuda.memcpy_htod_async(target, source, self._stream)

    def download(self, target: NDArray[np.uint8], source: int) -> None:
        """See `Device.download`."""
        self._pycuda.memcpy_dtoh_async(target, source, self._stream)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """See `Device.copy`."""
        self._pycuda.memcpy_dtod_async(target, source, nbytes, self._stream)

    def synchronize(self) -> None:
        """See `Device.synchronize`."""
        self._done.record(self._stream)
        self._done.synchronize()

    def capture(self, work: Callable[[], None]) -> CudaGraph:
        """See `Device.capture`. Other threads may use the GPU meanwhile.

        Raises:
            BackendError: the work makes a call that can't be recorded.
        """
        with _no_collection():
            return self._capture(work)

    def _capture(self, work: Callable[[], None]) -> CudaGraph:
        driver = self._driver
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._check(driver.cuStreamBeginCapture(self.stream, mode))
        try:
            with self._calls("recording a CUDA graph"):
                work()
        except BaseException:
            with suppress(BackendError):  # report the first error
                driver.cuGraphDestroy(self._check(driver.cuStreamEndCapture(self.stream)))
            raise
        graph = self._check(driver.cuStreamEndCapture(self.stream))
        try:
            return CudaGraph(self, driver, self._check(driver.cuGraphInstantiate(graph, 0)))
        finally:
            driver.cuGraphDestroy(graph)

    def launch(self, graph: CudaGraph) -> None:
        """See `Device.launch`."""
        self._check(self._driver.cuGraphLaunch(graph.handle, self.stream))

    def load_function(self, cubin: bytes, name: str, formats: str) -> Any:
        """Loads a kernel; `formats` are its arguments' types as format characters of `struct`."""
        module = self._pycuda.module_from_buffer(cubin)
        function = module.get_function(name)
        function.prepare(formats)
        return function

    def call(
        self, function: Any, grid: tuple[int, int, int], block: tuple[int, int, int], arguments: Sequence[np.generic]
    ) -> None:
        """Puts a kernel on the stream."""
        function.prepared_async_call(grid, block, self._stream, *arguments)

    def elapsed_ms(self, work: Callable[[], None]) -> float:
        """See `Device.elapsed_ms`: between two events around the work."""
        start, end = self._pycuda.Event(), self._pycuda.Event()
        start.record(self._stream)
        work()
        end.record(self._stream)
        end.synchronize()
        return float(end.time_since(start))

    def close(self) -> None:
        """See `Device.close`. It may be called inside `active()`; what follows in there can't use the device."""
        if self._context is None:
            return
        with self.active():
            self._stream = self._done = None
        # Any thread can release an active context, but PyCUDA would leave a primary one on the driver's stack.
        self._context.push()
        self._driver.cuCtxPopCurrent()
        self._context.detach()  # takes all its entries off this thread's stack
        self._context, self._closed_by = None, threading.get_ident()

    @contextmanager
    def _calls(self, doing: str) -> Iterator[None]:
        """Turns PyCUDA's errors into BackendErrors."""
        try:
            yield
        except self._pycuda.Error as error:
            raise BackendError(f"{doing}: {explain(str(error))}") from error

    def _check(self, result: tuple[Any, ...]) -> Any:
        """Returns the value of a cuda-bindings result, `(CUresult, values…)`, or raises its error."""
        status, *values = result
        if int(status):
            _, text = self._driver.cuGetErrorString(status)
            raise BackendError(f"running on the GPU: {explain(text.decode() if text else status.name)}")
        return values[0] if values else None
