import pytest

from salema.runtime.errors import ModelError, UsageError
from salema.runtime.gpu.trt_library import TENSORRT, TENSORRT_RTX
from salema.runtime.model_folder import NCNN_FILES, look_up


def folder_with(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_a_whole_model_is_found_by_its_folder_and_by_its_file(tmp_path):
    folder = folder_with(tmp_path / "m", "model.onnx", "notes.txt")
    for path in (folder, folder / "model.onnx", str(folder)):
        model = look_up(path)
        assert model.onnx_files() == (folder / "model.onnx",)
        assert model.sources == (folder / "model.onnx",)
        assert (model.is_model, model.is_split, model.is_engine) == (True, False, False)


def test_a_split_model_is_found_by_its_folder_and_by_either_part(tmp_path):
    folder = folder_with(tmp_path / "m", "encoder.onnx", "decoder.onnx", "encoder.rtx.engine", "decoder.rtx.engine")
    parts = (folder / "encoder.onnx", folder / "decoder.onnx")
    for path in (folder, *parts):
        assert look_up(path).is_split
        assert look_up(path).onnx_files() == parts
    engines = (folder / "encoder.rtx.engine", folder / "decoder.rtx.engine")
    assert look_up(folder).engines(TENSORRT_RTX) == engines
    assert look_up(folder / "decoder.rtx.engine").engines(TENSORRT_RTX) == engines
    parts[1].unlink()
    with pytest.raises(ModelError, match=r"decoder\.onnx: missing, and it is half of a split model"):
        look_up(folder).onnx_files()


@pytest.mark.parametrize("named", ["triton", "triton/model.onnx"])
def test_below_a_model_the_model_above_is_named(tmp_path, named):
    """`--emit` writes into such a folder, which holds no model that we run."""
    folder = folder_with(tmp_path / "m", "model.onnx")
    folder_with(folder / "triton")
    with pytest.raises(ModelError, match=rf"m/triton/model\.onnx: no such model; .*, {folder / 'model.onnx'}$"):
        look_up(folder / named).onnx_files()


def test_a_folder_is_read_once(tmp_path):
    """Files that appear later are not in it: all code that opens the model sees the same."""
    folder = folder_with(tmp_path / "m", "model.onnx")
    model = look_up(folder)
    folder_with(folder, "model.engine", *NCNN_FILES)
    assert not model.has_engine(TENSORRT)
    again = look_up(folder)
    assert again.has_engine(TENSORRT)
    assert not again.has_engine(TENSORRT_RTX)
    assert [path.name for path in again.sources] == ["model.onnx"]


def test_engines_are_those_of_the_library_that_was_asked_for(tmp_path):
    folder = folder_with(tmp_path / "m", "model.onnx", "model.engine", "other.engine")
    assert look_up(folder).engines(TENSORRT) == (folder / "model.engine",)
    named = look_up(folder / "other.engine")
    assert named.is_engine
    assert not named.is_model
    assert named.engines(TENSORRT) == (folder / "other.engine",)
    with pytest.raises(ModelError, match=r"model\.rtx\.engine: no TensorRT-RTX engine yet; build it here with: "):
        look_up(folder).engines(TENSORRT_RTX)
    folder_with(folder, "notes.txt")
    with pytest.raises(UsageError, match=r"notes\.txt: not an engine"):
        look_up(folder / "notes.txt").engines(TENSORRT)


def test_a_missing_model_is_told_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(
        ModelError, match=r"absent: no such model; make one with: salema-export --weights FILE -o \S*absent"
    ):
        look_up(tmp_path / "absent")
    with pytest.raises(ModelError, match=rf"model\.onnx: no such model; .* -o {tmp_path}$"):
        look_up(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=rf"model\.onnx: no such model; .* -o {tmp_path}$"):
        look_up(tmp_path).onnx_files()


def test_a_model_of_another_name_stands_for_itself(tmp_path):
    folder = folder_with(tmp_path / "m", "model.onnx", "nano.onnx", "model.engine")
    named = look_up(folder / "nano.onnx")
    assert named.onnx_files() == named.sources == (folder / "nano.onnx",)
    assert (named.is_model, named.is_engine, named.is_split) == (False, False, False)
