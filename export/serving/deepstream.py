"""DeepStream's `nvinferserver`, which feeds outputs back as inputs (its LSTM loops), for one stream.

Sources: NVIDIA/DeepStream 3503348 (`nvdsinferserver_config.proto`, `_common.proto`, `_plugin.proto`) and 053ddd2
(`infer_lstm.cpp`, `infer_proto_utils.cpp`): loops take a batch of 1 only, and paths are relative to the file.
"""

from __future__ import annotations

from salema.export.serving.pbtxt import Name, pbtxt
from salema.export.serving.triton import tensor
from salema.runtime.spec import ModelSpec

CONFIG_FILE = "nvinferserver.txt"
_PREPROCESS = {
    "network_format": Name("IMAGE_FORMAT_BGR"),
    "tensor_order": Name("TENSOR_ORDER_NHWC"),
    "tensor_name": "frame",
    "maintain_aspect_ratio": 0,
    "frame_scaling_hw": Name("FRAME_SCALING_HW_GPU"),
    "frame_scaling_filter": 3,  # NvBufSurfTransformInter_Algo2; on the GPU it averages areas, as INTER_AREA does
    "normalize": {"scale_factor": 1.0},  # the mean is taken off in the graph
}


def model_config(spec: ModelSpec, name: str, platform: str) -> str:
    """Writes the `config.pbtxt` of the model that runs in `nvinferserver`."""
    record = {
        "name": name,
        "platform": platform,
        "max_batch_size": 1,
        "input": [tensor(spec, tensor_name) for tensor_name in spec.input_names],
        "output": [tensor(spec, tensor_name) for tensor_name in spec.output_names],
        "instance_group": {"count": 1, "kind": Name("KIND_GPU")},
        "parameters": {"key": "salema", "value": {"string_value": spec.to_json()}},
    }
    return pbtxt(record)


def nvinferserver_config(spec: ModelSpec, name: str, root: str) -> str:
    """Writes the configuration file of the element `nvinferserver`.

    `spec` is that of the graph that `graphs.looped` makes; `root` holds the model's folder, as seen from the file.
    """
    loops = [
        {"input": f"{loop}_in", "output": f"{loop}_out", "init_const": {"value": 0.0}, "keep_output": False}
        for loop in (name.removesuffix("_in") for name in spec.input_names[1:])
    ]
    infer = {
        "unique_id": 1,
        "gpu_ids": (0,),
        "max_batch_size": 1,
        "backend": {
            "triton": {
                "model_name": name,
                "version": -1,
                "model_repo": {"root": root, "log_level": 1, "strict_model_config": True},
            }
        },
        "preprocess": _PREPROCESS,
        "postprocess": {"other": {}},
        **({"lstm": {"loops": loops}} if loops else {}),
    }
    record = {
        "infer_config": infer,
        "input_control": {"process_mode": Name("PROCESS_MODE_FULL_FRAME"), "interval": 0},
        "output_control": {"output_tensor_meta": True},  # the map, for the application's probe
    }
    return pbtxt(record)


def pipeline() -> str:
    """Returns a pipeline for `gst-launch-1.0` that runs a file through the model."""
    return (
        "nvstreammux name=mux batch-size=1 width=1280 height=720"
        f" ! nvinferserver config-file-path={CONFIG_FILE} ! fakesink sync=false"
        " uridecodebin uri=file:///path/to/video.mp4 ! nvvideoconvert ! mux.sink_0\n"
    )
