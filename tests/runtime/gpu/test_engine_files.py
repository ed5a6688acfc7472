import dataclasses
import hashlib
import json

import pytest

from salema.kernels.gpus import Gpu
from salema.runtime.errors import ModelError, OutputError, UsageError
from salema.runtime.gpu.engine_files import (
    EngineInfo,
    check_versions,
    note_on,
    read_engine,
    sha256_of,
    sidecar_of,
    write_engine,
)
from salema.runtime.gpu.trt_library import TENSORRT, TENSORRT_RTX
from salema.runtime.model_folder import look_up
from salema.runtime.onnx_metadata import read_spec

PLAN = b"a plan"


@pytest.fixture
def folder(model, tmp_path):
    """A model's folder with an engine in it."""
    (tmp_path / "model.onnx").write_bytes((model / "model.onnx").read_bytes())
    write_engine(tmp_path / "model.engine", PLAN, facts(tmp_path))
    return tmp_path


def facts(folder, **changes):
    onnx = folder / "model.onnx"
    info = EngineInfo(
        spec=read_spec(onnx),
        backend="tensorrt",
        library_version="10.3.0",
        targets=("sm87",),
        gpu="Orin",
        batch_profile=(1, 1, 1),
        onnx_sha256=sha256_of(onnx),
        plan_sha256=hashlib.sha256(PLAN).hexdigest(),
        version_compatible=False,
        hardware_compatible=False,
        workspace_gib=None,
        optimization_level=3,
        convolutions=27,
        precision_shown_by="inspector",
        build_seconds=1.5,
        salema_version="0.1.0",
    )
    return dataclasses.replace(info, **changes)


def test_an_engine_and_its_facts_are_read_as_they_were_written(folder):
    (path,) = look_up(folder).engines(TENSORRT)
    assert path.read_bytes() == PLAN
    assert read_engine(path, TENSORRT) == (PLAN, facts(folder))
    assert look_up(path).engines(TENSORRT) == (path,)
    assert look_up(folder / "model.onnx").engines(TENSORRT) == (path,)
    assert sorted(p.name for p in folder.iterdir()) == ["model.engine", "model.engine.json", "model.onnx"]


def test_a_missing_engine_says_how_to_build_it(folder):
    with pytest.raises(ModelError, match="no TensorRT-RTX engine yet; .* --from .* --engine tensorrt-rtx"):
        look_up(folder).engines(TENSORRT_RTX)
    (folder / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"notes\.txt: not an engine"):
        look_up(folder / "notes.txt").engines(TENSORRT)


def test_parts_that_do_not_belong_together_are_refused(folder):
    path = folder / "model.engine"
    rebuild = f"salema-export --from {folder} --engine tensorrt"
    path.write_bytes(PLAN + b"!")
    with pytest.raises(ModelError, match=rf"not the engine that model\.engine\.json describes; .*{rebuild}"):
        read_engine(path, TENSORRT)
    path.write_bytes(PLAN)
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\x00\x00")
    with pytest.raises(ModelError, match=rf"model\.onnx beside it is another by now; .*{rebuild}"):
        read_engine(path, TENSORRT)
    (folder / "model.onnx").unlink()  # an engine alone is enough
    assert read_engine(path, TENSORRT)[0] == PLAN
    with pytest.raises(ModelError, match="built by tensorrt; run it with --backend tensorrt"):
        read_engine(path, TENSORRT_RTX)
    sidecar_of(path).unlink()
    with pytest.raises(ModelError, match=rf"model\.engine\.json: missing.*{rebuild}"):
        read_engine(path, TENSORRT)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda record: "{", "Expecting property name"),
        (lambda record: "[]", "of another version"),
        (lambda record: json.dumps({**record, "engine_version": 99}), "of another version"),
        (lambda record: json.dumps({**record, "colour": "red"}), "of another version"),
        (lambda record: json.dumps({**record, "spec": {}}), "metadata can't be read"),
        (lambda record: json.dumps({**record, "targets": 5}), "values of other types"),
        (lambda record: json.dumps({**record, "batch_profile": [1]}), "values of other types"),
        (lambda record: json.dumps({**record, "batch_profile": ["a", "b", "c"]}), "values of other types"),
        (lambda record: json.dumps({**record, "version_compatible": "no"}), "values of other types"),
        (lambda record: json.dumps({**record, "backend": 5}), "values of other types"),
        (lambda record: "[" * 100_000, "recursion"),
    ],
)
def test_damaged_facts(folder, change, why):
    sidecar = folder / "model.engine.json"
    sidecar.write_text(change(json.loads(sidecar.read_text())))
    with pytest.raises(ModelError, match=why) as error:
        read_engine(folder / "model.engine", TENSORRT)
    assert "build it again with: salema-export --from" in str(error.value)


def test_a_newer_model_does_not_ask_for_a_new_engine(folder):
    sidecar = folder / "model.engine.json"
    record = json.loads(sidecar.read_text())
    for change in ({}, {"colour": "red"}):
        sidecar.write_text(json.dumps({**record, **change, "spec": {"spec_version": 99, "salema_version": "9.1"}}))
        with pytest.raises(ModelError, match=r"written by salema 9\.1 in model format 99.*upgrade with: ") as error:
            read_engine(folder / "model.engine", TENSORRT)
        assert "build it again" not in str(error.value)


def test_other_versions_and_gpus_are_refused_unless_the_engine_was_built_for_them(folder, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    path = folder / "model.engine"

    def check(version="10.3.0", target="sm87", kind=TENSORRT, index=0, **changes):
        gpu = Gpu(index, "Orin", (int(target[2:-1]), int(target[-1])), 1, integrated=True)
        check_versions(facts(folder, **changes), path, kind, version, gpu)

    check()
    with pytest.raises(ModelError, match=r"built by TensorRT 10\.3\.0, and this is 11\.4\.1; build it here with"):
        check(version="11.4.1")
    check(version="11.4.1", version_compatible=True)
    with pytest.raises(ModelError, match=r"built by TensorRT 10\.3\.0, and this is 10\.2\.9"):
        check(version="10.2.9", version_compatible=True)  # later versions only
    with pytest.raises(ModelError, match="built for sm87, and this GPU, Orin, is sm110; build it here with"):
        check(target="sm110")
    check(target="sm110", hardware_compatible=True)
    with pytest.raises(ModelError, match="with: CUDA_VISIBLE_DEVICES=1 salema-export --from"):
        check(target="sm110", index=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5a2")  # of which CUDA's number 1 is the second
    with pytest.raises(ModelError, match="with: CUDA_VISIBLE_DEVICES=GPU-5a2 salema-export --from"):
        check(target="sm110", index=1)
    with pytest.raises(ModelError, match="with: salema-export .* --engine tensorrt-rtx --target sm120"):
        check(target="sm120", kind=TENSORRT_RTX)
    with pytest.raises(ModelError, match="with: salema-export .* --engine tensorrt$"):
        check(target="sm90", kind=TENSORRT_RTX)
    check(target="sm89", targets=("sm86", "sm89"))


def test_an_engine_of_another_gpu_of_the_same_kind_runs_with_a_note(folder):
    gpu = Gpu(0, "Orin", (8, 7), 1, integrated=True)
    assert note_on(facts(folder), gpu) == ""
    other = facts(folder, gpu="Orin Nano")
    assert note_on(other, gpu) == "engine tuned for Orin Nano"
    for change in ({"hardware_compatible": True}, {"backend": "tensorrt-rtx"}, {"gpu": None}):
        assert note_on(dataclasses.replace(other, **change), gpu) == ""


def test_a_failed_write_leaves_the_old_pair(folder):
    (folder / "model.engine.json").unlink()
    (folder / "model.engine.json").mkdir()
    with pytest.raises(OutputError, match=r"model\.engine\.json: is a folder"):
        write_engine(folder / "model.engine", b"new", facts(folder))
    assert (folder / "model.engine").read_bytes() == PLAN
    assert not list(folder.glob(".*"))
