"""Models that no engine can be built from."""

import json

import onnx
import pytest

from salema.runtime.errors import BackendError, ModelError

pytestmark = pytest.mark.tensorrt


@pytest.mark.parametrize("keep", [0, 1, 1000, -1])
def test_damaged_models_end_in_a_sentence_and_leave_no_engine(folder, keep, build):
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[:keep])
    with pytest.raises(ModelError, match="not an ONNX file, or cut off|not one that salema-export wrote"):
        build(folder)
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]


def change(folder, edit):
    proto = onnx.load(folder / "model.onnx")
    edit(proto)
    onnx.save(proto, folder / "model.onnx")


def test_an_operation_that_the_library_lacks(folder, build):
    def edit(proto):
        next(node for node in proto.graph.node if node.op_type == "Relu").op_type = "NoSuchOperation"

    change(folder, edit)
    with pytest.raises(BackendError, match="the library lacks an operation of the model; upgrade it") as error:
        build(folder)
    assert "NoSuchOperation" in str(error.value)
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]


def test_a_model_that_is_not_typed_as_it_says(folder, build):
    def edit(proto):
        record = json.loads(proto.metadata_props[0].value)
        proto.metadata_props[0].value = json.dumps(record | {"precision": "fp16"})

    change(folder, edit)
    with pytest.raises(ModelError, match="27 of 27 convolutions are not fp16 in the parsed network"):
        build(folder)


def test_a_model_whose_tensors_are_others(folder, build):
    change(folder, lambda proto: setattr(proto.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 80))
    with pytest.raises((ModelError, BackendError), match="inputs and outputs are not those|failed"):
        build(folder)
