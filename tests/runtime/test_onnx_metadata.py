import onnx
import pytest

from salema.runtime.errors import ModelError
from salema.runtime.onnx_metadata import read_spec
from salema.runtime.spec import ModelSpec


def test_metadata_equals_what_onnx_reads(exported):
    for options in ({}, {"arch": "salclstm30"}, {"batch": None, "precision": "fp16"}):
        path = exported(**options) / "model.onnx"
        entry = onnx.load(path).metadata_props[0]
        assert read_spec(path) == ModelSpec.from_json(entry.value, str(path))


def test_other_metadata_and_any_order_of_fields_are_no_obstacle(model, tmp_path):
    path = tmp_path / "model.onnx"
    proto = onnx.load(model / "model.onnx")
    ours = proto.metadata_props.pop()
    for key in ("author", "a" * 300):
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, "x" * 200
    head = onnx.ModelProto()
    head.metadata_props.append(ours)
    path.write_bytes(head.SerializeToString() + proto.SerializeToString())  # fields of one message may be concatenated
    assert read_spec(path) == read_spec(model / "model.onnx")


def test_every_cut_ends_in_a_sentence(model, tmp_path):
    data = (model / "model.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for keep in (0, 1, 2, 9, 100, len(data) // 2, len(data) - 2000, len(data) - 1):
        path.write_bytes(data[:keep])
        with pytest.raises(ModelError, match="not an ONNX file, or cut off|not one that salema-export wrote"):
            read_spec(path)


@pytest.mark.parametrize("junk", [b"\xff" * 64, b"\x00" * 64, b"salema" * 50, b"\x72\xff\xff\xff\xff\x0f", b"\x77"])
def test_junk_ends_in_a_sentence(tmp_path, junk):
    path = tmp_path / "junk.onnx"
    path.write_bytes(junk)
    with pytest.raises(ModelError, match="not an ONNX file|not one that salema-export wrote"):
        read_spec(path)
