"""One TensorRT or TensorRT-RTX build: network, configuration, plan, and the check of its precision.

Sources: TensorRT Python API 10.3 to 11.4 and TensorRT-RTX 1.2 to 1.7, "Builder", "IBuilderConfig", "OnnxParser".
The graph carries the precision (it is strongly typed): TensorRT 11 and TensorRT-RTX know no other way.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salema.export.engine.progress import BuildProgress, make_monitor
from salema.export.options import EngineOptions
from salema.runtime.errors import BackendError, ModelError, UsageError
from salema.runtime.gpu.trt_engine import deserialize, inspect_engine, set_shapes, shape_of
from salema.runtime.gpu.trt_library import TENSORRT_RTX, Library
from salema.runtime.spec import ModelSpec

if TYPE_CHECKING:
    import tensorrt as trt

_GIB = 1 << 30


@dataclass(frozen=True)
class Plan:
    """A built plan, its number of convolutions, the timing cache after the build if one is used, and the build time."""

    data: bytes
    convolutions: int
    timings: bytes | None
    seconds: float


def build_plan(
    library: Library, model: bytes, where: str, spec: ModelSpec, options: EngineOptions, profile: tuple[int, int, int]
) -> Plan:
    """Builds a plan from the content of the ONNX file `where`. For TensorRT-RTX the options name the targets.

    `profile` is the least, best and greatest number of streams, for a free batch.
    """
    started = time.perf_counter()
    progress = BuildProgress()
    with progress.ends_on_interrupt(), library.told("building the engine"):
        builder = library.must(library.trt.Builder(library.logger), "making a builder")
        network = _parse(library, builder, model, where, spec.precision)
        progress.check()
        convolutions = _check_network(library, network, spec, where)
        config = library.must(builder.create_builder_config(), "making a configuration")
        _configure(library, config, options)
        if spec.batch is None:
            _add_profile(library, builder, config, spec, profile)
        if options.timing_cache is not None:
            _load_timing_cache(library, config, options.timing_cache)
        monitor = config.progress_monitor = make_monitor(library.trt, progress)  # must outlive the build
        plan = builder.build_serialized_network(network, config)
        del monitor
        progress.close()
        progress.check()
        timings = None if options.timing_cache is None else bytes(config.get_timing_cache().serialize())
        data = bytes(library.must(plan, "building the engine"))
        return Plan(data, convolutions, timings, time.perf_counter() - started)


def inspect_plan(
    library: Library, plan: bytes, options: EngineOptions, spec: ModelSpec, streams: int, where: str
) -> str:
    """Loads a plan on its GPU, and returns the inspector's JSON of it."""
    progress = BuildProgress()
    with progress.ends_on_interrupt(), library.told("inspecting the engine"):
        engine = deserialize(library, plan, where, version_compatible=options.version_compatible)
        context = library.must(engine.create_execution_context(), "making an execution context")
        set_shapes(library, context, spec, streams)
        text = inspect_engine(library, engine, context)
        progress.check()
        return text


def _parse(library: Library, builder: trt.Builder, model: bytes, where: str, precision: str) -> trt.INetworkDefinition:
    # TensorRT 11 is always strongly typed, and may lack the flag.
    typed = getattr(library.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = library.must(builder.create_network(0 if typed is None else 1 << int(typed)), "making a network")
    parser: trt.OnnxParser = library.trt.OnnxParser(network, library.logger)
    if not parser.parse(model):
        errors = " / ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        library.logger.messages[:] = [errors] if errors else library.logger.messages
        error = library.error(f"reading {where}")
        if precision != "int8":
            raise error
        raise BackendError(
            f"{error}; INT8 for onnxruntime and openvino has unsigned activations, which TensorRT does not take: export"
            " with --for tensorrt"
        )
    return network


def _check_network(library: Library, network: trt.INetworkDefinition, spec: ModelSpec, where: str) -> int:
    """Returns the number of convolutions, after checking that the network types them as the model says."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [network.get_output(index) for index in range(network.num_outputs)]
    shapes = {tensor.name: tuple(None if n == -1 else n for n in shape_of(tensor.shape)) for tensor in tensors}
    if shapes != spec.tensor_shapes:
        raise ModelError(f"{where}: its inputs and outputs are not those of its metadata; export it again")
    kinds = {library.trt.LayerType.CONVOLUTION, library.trt.LayerType.DECONVOLUTION}
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    convolutions = [layer for layer in layers if layer.type in kinds]
    types = library.trt.DataType
    expected = types.HALF if spec.precision == "fp16" else types.FLOAT  # INT8 ones are float between Q and DQ
    wrong = sum(layer.get_output(0).dtype != expected for layer in convolutions)
    if spec.precision == "int8":
        dequantized = {layer.get_output(0).name for layer in layers if layer.type == library.trt.LayerType.DEQUANTIZE}
        in_float = [layer for layer in convolutions if layer.get_input(0).name not in dequantized]
        wrong += max(len(in_float) - len(spec.float_layers), 0)
    if wrong or not convolutions:
        raise ModelError(
            f"{where}: {wrong} of {len(convolutions)} convolutions are not {spec.precision} in the parsed network;"
            " export it again"
        )
    return len(convolutions)


def _configure(library: Library, config: trt.IBuilderConfig, options: EngineOptions) -> None:
    trt = library.trt
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector shows no types
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; its mantissa has 10 bits only
    if options.workspace_gib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(options.workspace_gib * _GIB))
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if library.kind is TENSORRT_RTX:
        _configure_rtx(library, config, options.targets)


def _configure_rtx(library: Library, config: Any, targets: tuple[str, ...]) -> None:
    """Sets what only TensorRT-RTX has, and TensorRT's types lack."""
    config.set_flag(library.trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # else a step can't be recorded in a CUDA graph
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        capability = getattr(library.trt.ComputeCapability, target.upper(), None)
        if capability is None:
            raise UsageError(f"--target {target}: TensorRT-RTX {library.version} does not know it; upgrade it")
        library.must(config.set_compute_capability(capability, index), f"setting the target {target}")


def _add_profile(
    library: Library,
    builder: trt.Builder,
    config: trt.IBuilderConfig,
    spec: ModelSpec,
    profile: tuple[int, int, int],
) -> None:
    shapes = builder.create_optimization_profile()
    for name in spec.input_names:
        rest = [n or 0 for n in spec.tensor_shapes[name][1:]]
        least, best, most = (library.trt.Dims((streams, *rest)) for streams in profile)
        shapes.set_shape(name, least, best, most)
    library.must(config.add_optimization_profile(shapes) >= 0, "adding the batch profile")


def _load_timing_cache(library: Library, config: trt.IBuilderConfig, path: Path) -> None:
    data = b""
    with suppress(FileNotFoundError):
        data = path.read_bytes()
    cache = library.must(config.create_timing_cache(data), f"reading the timing cache {path}")
    # A cache of another GPU or version is refused.
    library.must(
        config.set_timing_cache(cache, ignore_mismatch=False),
        f"using the timing cache {path} (delete it, or name another)",
    )
