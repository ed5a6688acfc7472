import numpy as np
import onnx
import pytest

from salema.runtime.backends.onnx_weights import read_weights
from salema.runtime.errors import ModelError


@pytest.mark.parametrize("options", [{}, {"precision": "fp16"}, {"arch": "salclstm56"}], ids=str)
def test_weights_equal_what_onnx_reads(exported, options):
    path = exported(**options) / "model.onnx"
    tensors = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    expected = {name: array for name, array in tensors.items() if array.dtype in (np.float32, np.float16)}
    found = read_weights(path)
    assert set(found) == set(expected)
    assert len(found) > 50
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name])


def test_dims_may_be_packed_or_not(tmp_path):
    """Protocol buffers allow both, and serializers differ."""
    name, raw = b"\x42\x01w", b"\x4a\x08" + np.array([1, 2], "<f4").tobytes()
    for dims in (b"\x08\x02\x08\x01", b"\x0a\x02\x02\x01"):
        tensor = dims + b"\x10\x01" + name + raw
        graph = b"\x2a" + bytes([len(tensor)]) + tensor
        (tmp_path / "m.onnx").write_bytes(b"\x3a" + bytes([len(graph)]) + graph)
        np.testing.assert_array_equal(read_weights(tmp_path / "m.onnx")["w"], [[1], [2]])


def test_every_cut_ends_in_a_sentence(model, tmp_path):
    data = (model / "model.onnx").read_bytes()
    for keep in (1, 100, len(data) // 2):
        (tmp_path / "cut.onnx").write_bytes(data[:keep])
        with pytest.raises(ModelError, match="not an ONNX file, or cut off"):
            read_weights(tmp_path / "cut.onnx")
