"""The real bindings have every class, enum value and method of TensorRT that we name."""

import pytest
from trt_contract import BUILDER, RUNTIME, missing_names, used_names

# Only TensorRT-RTX has these, and only code for it uses them.
RTX_ONLY = {
    "BuilderFlag.REQUIRE_USER_ALLOCATION",
    "ComputeCapability",
    "CudaGraphStrategy",
    "CudaGraphStrategy.DISABLED",
    "DynamicShapesKernelSpecializationStrategy",
    "DynamicShapesKernelSpecializationStrategy.EAGER",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "IRuntimeCache.deserialize",
    "IRuntimeCache.serialize",
    "IRuntimeConfig.create_runtime_cache",
    "IRuntimeConfig.cuda_graph_strategy",
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
    "IRuntimeConfig.set_runtime_cache",
}


def test_tensorrt_rtx_has_every_name_that_we_use():
    import tensorrt_rtx

    names = used_names([*RUNTIME, *BUILDER])
    assert len(names) > 60  # the search works
    assert names >= RTX_ONLY
    # Layers and tensors are what the network gives; the concrete classes have their attributes.
    assert missing_names(tensorrt_rtx, names) == []


def test_the_lean_runtime_of_tensorrt_11_has_every_name_that_the_runtime_uses():
    import tensorrt_lean_bindings

    assert tensorrt_lean_bindings.__version__.startswith("11.")
    names = used_names(RUNTIME) - RTX_ONLY
    assert {"Runtime.deserialize_cuda_engine", "IExecutionContext.execute_async_v3"} < names
    # The lean module exports no inspector class, but its engines make inspectors.
    assert missing_names(tensorrt_lean_bindings, names) == [
        "EngineInspector",
        "EngineInspector.execution_context",
        "EngineInspector.get_engine_information",
    ]
    assert hasattr(tensorrt_lean_bindings.ICudaEngine, "create_engine_inspector")


@pytest.mark.parametrize(
    "dropped",
    ["EXPLICIT_BATCH", "BuilderFlag.FP16", "BuilderFlag.INT8", "platform_has_fast_fp16", "Calibrator", "max_workspace"],
)
def test_we_use_nothing_that_tensorrt_11_dropped(dropped):
    assert not [name for name in used_names([*RUNTIME, *BUILDER]) if dropped in name]


def test_the_contract_can_fail():
    import tensorrt_rtx

    assert missing_names(tensorrt_rtx, {"Runtime.deserialise", "Runtime.logger"}) == ["Runtime.deserialise"]
