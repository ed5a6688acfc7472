import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from salema.benchmarks.studies.same_files import compare, is_same
from salema.benchmarks.studies.same_outputs import shot, write_video


@pytest.fixture
def pair(tmp_path):
    """Two folders; gives a function that says whether two contents of a file of one name are the same."""

    def same(name, write, *contents):
        paths = [tmp_path / side / name for side in ("before", "after")]
        for path, content in zip(paths, contents, strict=True):
            path.parent.mkdir(exist_ok=True)
            write(path, content)
        return is_same(*paths)

    return same


def write_json(path, record):
    path.write_text(json.dumps(record))


def write_lines(path, records):
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def write_model(path, changes):
    values = {"version": "0.1.0", "coefficient": 0.1, "bias": 1.0} | changes
    shape = onnx.helper.make_tensor_value_info
    bias = onnx.numpy_helper.from_array(np.float32([values["bias"]]), "bias")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "bias"], ["y"])],
        "step",
        [shape("x", onnx.TensorProto.FLOAT, [1])],
        [shape("y", onnx.TensorProto.FLOAT, [1])],
        [bias],
    )
    model = onnx.helper.make_model(graph, producer_name="salema", producer_version=values["version"])
    facts = {"salema_version": values["version"], "coefficient": values["coefficient"]}
    onnx.helper.set_model_props(model, {"salema": json.dumps(facts)})
    onnx.save(model, path)


def write_npz(path, maps):
    np.savez(path, maps=maps)


@pytest.mark.parametrize("name", ["0001.png", "o.csv", "m.ncnn.bin", "bench.md", "w.safetensors"])
def test_a_changed_byte_is_seen(pair, name):
    assert pair(name, Path.write_bytes, b"frame,1", b"frame,1")
    assert not pair(name, Path.write_bytes, b"frame,1", b"frame,2")


def test_a_changed_version_or_time_of_a_record_is_not_seen_and_a_changed_value_is(pair):
    record = {"salema_version": "0.1.0", "model": {"coefficient": 0.1, "files_sha256": "a"}, "seconds": 1.5}
    newer = {"salema_version": "0.2.0", "model": {"coefficient": 0.1, "files_sha256": "b"}, "seconds": 2.5}
    for name, write in (("salema.json", write_json), ("run.jsonl", lambda path, record: write_lines(path, [record]))):
        assert pair(name, write, record, newer)
        assert not pair(name, write, record, newer | {"model": {"coefficient": 0.2}})
        assert not pair(name, write, record, newer | {"frames": 3})
    assert not pair("run.jsonl", write_lines, [record], [newer, newer])


def test_a_changed_version_of_a_model_is_not_seen_and_a_changed_weight_or_fact_is(pair):
    assert pair("model.onnx", write_model, {}, {"version": "0.2.0"})
    assert not pair("model.onnx", write_model, {}, {"version": "0.2.0", "bias": 1.0000001})
    assert not pair("model.onnx", write_model, {}, {"version": "0.2.0", "coefficient": 0.2})


def test_arrays_are_compared_not_the_archives_that_hold_them(pair):
    maps = np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 2, 3)
    changed = maps.copy()
    changed[1, 1, 2] = np.nextafter(np.float32(1), np.float32(0))
    assert pair("o.npz", lambda path, compress: (np.savez, np.savez_compressed)[compress](path, maps=maps), 0, 1)
    assert not pair("o.npz", write_npz, maps, changed)


def test_pictures_and_sound_of_a_video_are_compared(pair):
    frames = shot(1, 4)
    assert pair("o.mp4", write_video, frames, frames)
    darker = frames.copy()
    darker[3] //= 2
    assert not pair("o.mp4", write_video, frames, darker)
    assert not pair("o.mp4", write_video, frames, frames[:3])


def test_files_of_one_side_are_told(tmp_path):
    for name, content in {"before/a.csv": "1", "after/a.csv": "1", "before/maps/1.png": "1", "after/b.csv": ""}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    found = compare(tmp_path / "before", tmp_path / "after")
    assert found == {"a.csv": "same", "b.csv": "only after", "maps/1.png": "only before"}
    (tmp_path / "after/a.csv").write_text("2")
    assert compare(tmp_path / "before", tmp_path / "after")["a.csv"] == "differs"
