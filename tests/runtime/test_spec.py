import json

import pytest

from salema.runtime.errors import ModelError
from salema.runtime.spec import ModelSpec, StateSpec

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


def test_it_survives_json():
    assert ModelSpec.from_json(SPEC.to_json(), "x") == SPEC


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
