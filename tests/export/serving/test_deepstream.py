"""DeepStream's configuration, and the loop that its `nvinferserver` makes, over ONNX Runtime."""

import numpy as np
import onnxruntime
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from sequence_batcher import check_model, read_config

from salema.export.weights.seeded import moving_disc
from salema.runtime import load

# What nvinferserver's three .proto files declare of the fields that we write (NVIDIA/DeepStream 3503348), in our own
# form: message, then its fields by number and type. `+` marks a repeated one, a capital letter another message or enum.
MESSAGES = {
    "PluginControl": "infer_config=1:InferenceConfig input_control=2:InputControl output_control=3:OutputControl",
    "InputControl": "process_mode=1:ProcessMode interval=4:uint32",
    "OutputControl": "output_tensor_meta=1:bool",
    "InferenceConfig": "unique_id=1:uint32 +gpu_ids=2:int32 max_batch_size=3:uint32 backend=4:BackendParams"
    " preprocess=5:PreProcessParams postprocess=6:PostProcessParams lstm=9:LstmParams",
    "BackendParams": "triton=4:TritonParams",
    "TritonParams": "model_name=1:string version=2:int64 model_repo=4:TritonModelRepo",
    "TritonModelRepo": "+root=1:string log_level=2:uint32 strict_model_config=3:bool",
    "PreProcessParams": "network_format=1:MediaFormat tensor_order=2:TensorOrder tensor_name=3:string"
    " maintain_aspect_ratio=4:int32 frame_scaling_hw=5:FrameScalingHW frame_scaling_filter=6:uint32"
    " normalize=7:ScaleNormalize",
    "ScaleNormalize": "scale_factor=1:float",
    "PostProcessParams": "other=5:OtherNetworkParams",
    "OtherNetworkParams": "",
    "LstmParams": "+loops=1:LstmLoop",
    "LstmLoop": "input=1:string output=2:string init_const=3:InitConst keep_output=4:bool",
    "InitConst": "value=1:float",
}
ENUMS = {
    "ProcessMode": "PROCESS_MODE_DEFAULT PROCESS_MODE_FULL_FRAME PROCESS_MODE_CLIP_OBJECTS",
    "MediaFormat": "MEDIA_FORMAT_NONE IMAGE_FORMAT_RGB IMAGE_FORMAT_BGR IMAGE_FORMAT_GRAY",
    "TensorOrder": "TENSOR_ORDER_NONE TENSOR_ORDER_LINEAR TENSOR_ORDER_NHWC",
    "FrameScalingHW": "FRAME_SCALING_HW_DEFAULT FRAME_SCALING_HW_GPU FRAME_SCALING_HW_VIC",
}


def plugin_control():
    """The class of the whole configuration."""
    file = descriptor_pb2.FileDescriptorProto(name="nvdsinferserver.proto", package="test", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values.split()):
            enum.value.add(name=value, number=number)
    for name, declared in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in declared.split():
            field_name, number, kind = field.lstrip("+").replace("=", ":").split(":")
            added = message.field.add(name=field_name, number=int(number))
            added.label = kinds.LABEL_REPEATED if field.startswith("+") else kinds.LABEL_OPTIONAL
            if kind[0].isupper():
                added.type = kinds.TYPE_ENUM if kind in ENUMS else kinds.TYPE_MESSAGE
                added.type_name = f".test.{kind}"
            else:
                added.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.PluginControl"))


def looped(folder, frames):
    """What `nvinferserver` does: each loop's input is its constant, then its own output of the frame before."""
    config = text_format.Parse((folder / "nvinferserver.txt").read_text(), plugin_control()())
    infer = config.infer_config
    model = folder / infer.backend.triton.model_repo.root[0] / infer.backend.triton.model_name
    session = onnxruntime.InferenceSession(str(model / "1/model.onnx"))
    check_model(read_config(model), session)
    names = [output.name for output in session.get_outputs()]
    shapes = {value.name: [1, *value.shape[1:]] for value in session.get_inputs()}
    loops = {loop.input: loop.output for loop in infer.lstm.loops}
    assert set(shapes) == {infer.preprocess.tensor_name, *loops}
    states = {loop.input: np.full(shapes[loop.input], loop.init_const.value, np.float32) for loop in infer.lstm.loops}
    for frame in frames:
        outputs = dict(zip(names, session.run(names, {"frame": frame[None], **states}), strict=True))
        states = {name: outputs[output] for name, output in loops.items()}
        yield outputs["saliency"][0, 0]


@pytest.mark.parametrize("network", [{}, {"ema_locs": (7, 54)}, {"arch": "salclstm30"}])
def test_the_loop_gives_the_maps_of_salema_run(repository, network):
    folder = repository("deepstream", **network)
    frames = moving_disc(5, 64, 96)
    with load(folder, backend="onnxruntime") as stream:
        expected = [stream.step(frame) for frame in frames]
    np.testing.assert_allclose(list(looped(folder / "deepstream", frames)), expected, atol=1e-6)


def test_the_configuration_is_what_nvinferserver_takes(repository):
    folder = repository("deepstream") / "deepstream"
    config = text_format.Parse((folder / "nvinferserver.txt").read_text(), plugin_control()())
    infer = config.infer_config
    assert infer.max_batch_size == 1  # "LSTM support batch-size 1 only"
    assert [(loop.input, loop.output) for loop in infer.lstm.loops] == [
        ("ema30_in", "ema30_out"),
        ("started_in", "started_out"),
    ]
    assert (infer.preprocess.network_format, infer.preprocess.tensor_order) == (2, 2)  # BGR, NHWC
    assert (infer.preprocess.normalize.scale_factor, infer.preprocess.frame_scaling_filter) == (1, 3)
    assert config.output_control.output_tensor_meta
    assert "config-file-path=nvinferserver.txt" in (folder / "pipeline.txt").read_text()
