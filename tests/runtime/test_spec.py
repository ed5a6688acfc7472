import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from salema.runtime.errors import ModelError
from salema.runtime.spec import ModelSpec, SplitSpec, StateSpec, salema_version

SPEC = ModelSpec(
    architecture="SalEMA30+54",
    height=192,
    width=256,
    batch=None,
    precision="fp16",
    states=(StateSpec("ema30", (512, 12, 16)), StateSpec("ema54", (128, 96, 128))),
    coefficient=0.1,
    coefficient_source="the default 0.1, used directly",
    weights="SalEMA30.pt",
    weights_sha256="0" * 64,
    trained=True,
    rewrites=("mean",),
    salema_version="0.1.0",
)


def test_a_spec_survives_json():
    assert ModelSpec.from_json(SPEC.to_json(), "x") == SPEC


def test_records_of_former_formats_are_read():
    record = json.loads(SPEC.to_json())
    plain = replace(SPEC, plain_recurrence=True, reference_fps=30.0)
    for spec_version, new in (
        (3, ("plain_recurrence", "reference_fps")),
        (2, ("float_layers",)),
        (1, ("part", "split")),
    ):
        for name in new:
            del record[name]
        assert ModelSpec.from_json(json.dumps(record | {"spec_version": spec_version}), "x") == plain


@pytest.mark.parametrize(("residual", "named"), [(True, "entered"), (False, None)])
def test_split_models_of_format_3_are_read(residual, named):
    encoder = replace(SPEC, states=SPEC.states[:1], part="encoder", split=SplitSpec(named, relu=True))
    record = json.loads(encoder.to_json()) | {"spec_version": 3, "split": {"residual": residual, "relu": True}}
    del record["plain_recurrence"], record["reference_fps"]
    assert ModelSpec.from_json(json.dumps(record), "x") == replace(encoder, plain_recurrence=True)


@pytest.mark.parametrize(
    "change",
    [
        {"reference_fps": 0},
        {"reference_fps": "fast"},
        {"split": {"residual": "left", "relu": True, "rectified": False}, "part": "encoder"},
        {"split": {"residual": None, "relu": False, "rectified": True}, "part": "encoder"},
    ],
)
def test_values_that_mean_nothing_are_refused(change):
    record = json.loads(SPEC.to_json()) | change
    with pytest.raises(ModelError, match=r"m\.onnx: its salema metadata is damaged \(.*\); export it again"):
        ModelSpec.from_json(json.dumps(record), "m.onnx")


def test_parts_have_tensors_of_their_own():
    one = replace(SPEC, states=SPEC.states[:1])
    encoder = replace(one, part="encoder", split=SplitSpec("entered", relu=True))
    decoder = replace(encoder, part="decoder")
    assert encoder.tensor_shapes == {
        "frame": (None, 192, 256, 3),
        "fresh": (None, 512, 12, 16),
        "entered": (None, 512, 12, 16),
    }
    assert decoder.tensor_shapes == {"averaged": (None, 512, 12, 16), "saliency": (None, 1, 192, 256)}
    assert {name: decoder.tensor_dtype(name) for name in decoder.tensor_shapes} == {
        "averaged": "float16",
        "saliency": "float32",
    }
    assert encoder.whole == decoder.whole == one
    assert ModelSpec.from_json(encoder.to_json(), "x") == encoder
    for part, split in (("encoder", None), ("model", encoder.split), ("middle", encoder.split)):
        with pytest.raises(ValueError, match="parts and split"):
            replace(one, part=part, split=split)


def test_where_nothing_is_installed_the_version_says_so():
    code = "import sys; sys.path[:0] = [sys.argv[1]]; from salema.runtime.spec import salema_version as v; print(v())"
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "salema").mkdir()
        for name in ("kernels", "runtime"):
            (Path(folder) / "salema" / name).symlink_to(root / name)
        done = subprocess.run([sys.executable, "-S", "-c", code, folder], cwd=folder, capture_output=True, text=True)
    assert done.stdout == "checkout\n", done.stderr
    assert salema_version()[0].isdigit()


def test_names_are_in_the_order_of_the_graph():
    assert SPEC.input_names == ("frame", "ema30_in", "ema54_in", "mix")
    assert SPEC.output_names == ("saliency", "ema30_out", "ema54_out")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"spec_version": null}', '"text"', "null"])
def test_other_json_is_refused(text):
    with pytest.raises(ModelError, match=r"m\.onnx: its salema metadata can't be read"):
        ModelSpec.from_json(text, "m.onnx")


def test_a_missing_entry_is_named():
    record = json.loads(SPEC.to_json())
    del record["precision"]
    with pytest.raises(ModelError, match=r"\(precision\)"):
        ModelSpec.from_json(json.dumps(record), "m.onnx")
