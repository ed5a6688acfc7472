"""One TensorRT or TensorRT-RTX engine: loads it, checks it against its facts, binds its tensors and runs it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salema.kernels.gpus import list_gpus
from salema.runtime.errors import ModelError
from salema.runtime.files.whole_files import write_bytes
from salema.runtime.gpu.engine_files import EngineInfo, check_versions, note_on
from salema.runtime.gpu.engine_inspector import check_precision
from salema.runtime.gpu.trt_library import TENSORRT_RTX, Library
from salema.runtime.spec import ModelSpec

if TYPE_CHECKING:
    import tensorrt as trt

    from salema.kernels.device.cuda import CudaDevice

_DTYPES = {"uint8": "UINT8", "float16": "HALF", "float32": "FLOAT"}


class TrtEngine:
    """A `StepEngine` over TensorRT, of a whole model or a part. Its calls need the device's `active()` around them."""

    updates_in_place = False

    def __init__(self, path: Path, plan: bytes, info: EngineInfo, library: Library, device: CudaDevice) -> None:
        """Loads the engine on the device; `path` is used in messages, and for the cache that is kept beside it.

        Raises:
            ModelError: the engine is not for this version or GPU, or its tensors are not those of its facts.
            BackendError: TensorRT can't load it, or its convolutions run in another precision than its facts say.
        """
        self._library = library
        self._path = path
        check_versions(info, path, library.kind, library.version, device.gpu)
        self.spec = info.spec
        self.note = note_on(info, device.gpu)
        self.batch_range = (info.batch_profile[0], info.batch_profile[2])
        self._cache: Any = None
        self._runtime_config: Any = None
        try:
            self._load(plan, info)
        except BaseException:
            self.close()
            raise

    def _load(self, plan: bytes, info: EngineInfo) -> None:
        library, path = self._library, self._path
        with library.told(f"loading {path}"):
            self._engine = deserialize(library, plan, str(path), version_compatible=info.version_compatible)
            _check_tensors(library, self._engine, self.spec, path)
            self._context: trt.IExecutionContext = self._make_context(self._engine)
            self.set_batch(info.batch_profile[1])  # `capturable` and the inspector's types need shapes
            if info.precision_shown_by != "inspector":
                text = inspect_engine(library, self._engine, self._context)
                check_precision(text, self.spec.precision, str(path), in_float=len(self.spec.float_layers))

    def set_batch(self, streams: int) -> None:
        """See `StepEngine.set_batch`."""
        set_shapes(self._library, self._context, self.spec, streams)

    def bind(self, name: str, address: int) -> None:
        """See `StepEngine.bind`."""
        self._library.must(self._context.set_tensor_address(name, address), f"binding {name}")

    def enqueue(self, stream: int) -> None:
        """See `StepEngine.enqueue`."""
        self._library.must(self._context.execute_async_v3(stream), "running the engine")

    def capturable(self, stream: int) -> bool:
        """See `StepEngine.capturable`. TensorRT-RTX is asked; TensorRT can record every engine without control flow."""
        ask = getattr(self._context, "is_stream_capturable", None)
        return True if ask is None else bool(ask(stream))

    def close(self) -> None:
        """See `StepEngine.close`."""
        if self._cache is not None:
            # Without the cache the kernels are compiled again, no more. TypeError: the cache was empty.
            with suppress(OSError, TypeError, RuntimeError):
                write_bytes(self._cache_path, bytes(self._cache.serialize()))
        self._runtime_config = self._cache = None
        for name in ("_context", "_engine"):  # in this order; an engine that failed to load lacks them
            self.__dict__.pop(name, None)

    @property
    def _cache_path(self) -> Path:
        return self._path.with_name(self._path.name + ".cache")

    def _make_context(self, engine: trt.ICudaEngine) -> Any:
        if self._library.kind is TENSORRT_RTX:
            return self._make_rtx_context(engine)
        return self._library.must(engine.create_execution_context(), "making an execution context")

    def _make_rtx_context(self, engine: Any) -> Any:
        """Makes a context. TensorRT-RTX compiles its kernels then; the cache beside the engine keeps them."""
        library, trt = self._library, self._library.trt
        self._runtime_config = runtime_config = library.must(engine.create_runtime_config(), "making a configuration")
        # Our own graph records upload and download too, and knows the order of the buffers.
        runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        if self.batch_range[0] != self.batch_range[1]:  # lazy kernels are replaced after a graph was recorded
            strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            runtime_config.dynamic_shapes_kernel_specialization_strategy = strategy
        self._cache = library.must(runtime_config.create_runtime_cache(), "making a cache")
        with suppress(OSError):
            # False if the cache is of another version: TensorRT-RTX makes it again.
            self._cache.deserialize(self._cache_path.read_bytes())
        library.must(runtime_config.set_runtime_cache(self._cache), "setting the cache")
        return library.must(engine.create_execution_context(runtime_config), "making an execution context")


def set_shapes(library: Library, context: trt.IExecutionContext, spec: ModelSpec, streams: int) -> None:
    """Sets the shapes of all inputs for a number of streams.

    Raises:
        BackendError: the engine's profile does not allow it.
    """
    for name in spec.input_names:
        rest = [n or 0 for n in spec.tensor_shapes[name][1:]]
        done = context.set_input_shape(name, (streams, *rest))
        library.must(done, f"setting {name} to {streams} streams")


def deserialize(library: Library, plan: bytes, where: str, *, version_compatible: bool) -> trt.ICudaEngine:
    """Loads a plan on the current GPU.

    Raises:
        BackendError: the library refuses the plan, or there is no GPU.
    """
    list_gpus()  # raises without a driver: TensorRT 11 would crash after making a Runtime
    runtime: trt.Runtime = library.must(library.trt.Runtime(library.logger), "making a runtime")
    if version_compatible:
        runtime.engine_host_code_allowed = True  # such a plan contains the lean runtime as code
    return library.must(runtime.deserialize_cuda_engine(plan), f"loading {where}")


def inspect_engine(library: Library, engine: trt.ICudaEngine, context: trt.IExecutionContext) -> str:
    """Returns the inspector's JSON of a loaded engine; the context's shapes let it show types of dynamic tensors."""
    inspector: trt.EngineInspector = library.must(engine.create_engine_inspector(), "making an inspector")
    inspector.execution_context = context
    return str(inspector.get_engine_information(library.trt.LayerInformationFormat.JSON))


def shape_of(dims: trt.Dims) -> tuple[int, ...]:
    """Returns TensorRT's shape as a tuple; -1 is a free size."""
    return tuple(int(dims[index]) for index in range(len(dims)))


def _check_tensors(library: Library, engine: trt.ICudaEngine, spec: ModelSpec, path: Path) -> None:
    trt = library.trt
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    modes = {True: trt.TensorIOMode.INPUT, False: trt.TensorIOMode.OUTPUT}
    expected = {
        name: (
            tuple(-1 if n is None else n for n in shape),
            getattr(trt.DataType, _DTYPES[spec.tensor_dtype(name)]),
            modes[name in spec.input_names],
        )
        for name, shape in spec.tensor_shapes.items()
    }
    tensors = {
        name: (shape_of(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name), engine.get_tensor_mode(name))
        for name in names
    }
    if tensors != expected:
        raise ModelError(f"{path}: its inputs and outputs are not those of its facts; build it again")
