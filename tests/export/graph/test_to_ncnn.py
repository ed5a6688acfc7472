"""The form for ncnn: what is in it, its files for other programs, and when they are not written."""

import json
import sys

import numpy as np
import onnx
import pytest

from salema.export.cli import main
from salema.export.weights.seeded import seeded_state_dict
from salema.runtime.backends.ncnn_form import FORM_KEY, ncnn_weights, read_form
from salema.runtime.backends.ncnn_session import load_net, to_mat
from salema.runtime.model_folder import NCNN_FILES

ARGUMENTS = ("--weights", "seeded:16", "--imgsz", 64, 96, "--engine", "none", "--for", "ncnn")
PARAM, WEIGHTS = NCNN_FILES


def layers(folder):
    """Rows `(kind, name, inputs, outputs, parameters)` of the form's layers."""
    magic, counts, *rows = read_form(folder / "model.onnx").param.splitlines()
    assert magic == "7767517"
    found = []
    for row in rows:
        kind, name, inputs, outputs, *rest = row.split()
        ends = int(inputs), int(inputs) + int(outputs)
        found.append((kind, name, rest[: ends[0]], rest[ends[0] : ends[1]], rest[ends[1] :]))
    assert counts == f"{len(found)} {sum(len(row[3]) for row in found)}"
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"residual": True},
        {"ema_locs": (30, 54)},
        {"ema_locs": (61,)},
        {"arch": "salgan"},
        {"arch": "salclstm30", "residual": True},
        {"arch": "salclstm56"},
    ],
    ids=str,
)
def test_every_blob_is_written_once_before_it_is_read_and_read_once(exported, options):
    written, read = set(), set()
    for _, _, inputs, outputs, _ in layers(exported(**options)):
        assert set(inputs) <= written - read
        assert not set(outputs) & written
        read |= set(inputs)
        written |= set(outputs)
    assert "saliency" in written - read
    assert {blob for blob in written if blob.endswith("_in")} <= read


@pytest.mark.parametrize("options", [{}, {"arch": "salclstm56"}], ids=str)
def test_the_sizes_that_layers_are_said_to_have_are_theirs(exported, options):
    folder = exported(**options)
    form = read_form(folder / "model.onnx")
    net = load_net(form.param, ncnn_weights(form, folder / "model.onnx"))
    extractor = net.create_extractor()
    for kind, name, *_, parameters in layers(folder):
        sizes = dict(each.split("=") for each in parameters)
        if kind == "Input":
            shape = [int(sizes[key]) for key in "210" if key in sizes]
            extractor.input(name, to_mat(np.ones(shape)))
        elif kind == "Convolution":
            code, found = extractor.extract(name)
            assert code == 0
            assert sizes["-23330"] == f"4,3,{found.w},{found.h},{found.c}"


def test_weights_are_the_checkpoint_s_to_the_bit_and_in_order(exported):
    folder = exported()
    form = read_form(folder / "model.onnx")
    values = np.frombuffer(b"".join(ncnn_weights(form, folder / "model.onnx")), "<f4")
    np.testing.assert_array_equal(values[:3], -np.array([103.939, 116.779, 123.68], np.float32))
    place, arrays = 3, seeded_state_dict("salema", 16)
    for kind, name, _, _, parameters in layers(folder):
        if kind == "Convolution":
            weight, bias = arrays.pop(f"{name}.weight"), arrays.pop(f"{name}.bias")
            assert f"6={weight.size}" in parameters
            assert values[place] == 0  # raw float32
            expected = np.concatenate([weight.ravel(), bias])
            np.testing.assert_array_equal(values[place + 1 : place + 1 + expected.size], expected)
            place += 1 + expected.size
    assert (place, arrays) == (values.size, {})


def test_with_for_ncnn_other_programs_get_files(cli, tmp_path):
    ran = cli(main, *ARGUMENTS, "-o", tmp_path / "m", "--json")
    assert ran.code == 0
    assert "checking      the same in ncnn" in ran.err
    record = json.loads(ran.out)
    assert record["paths"] == [str(tmp_path / "m" / name) for name in ("model.onnx", *NCNN_FILES)]
    assert 0 < record["ncnn_check"]["map_max"] < 1e-5 < record["ncnn_check"]["control_max"]
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == sorted(["model.onnx", *NCNN_FILES])
    assert record["size_bytes"] == sum(path.stat().st_size for path in (tmp_path / "m").iterdir())
    form = read_form(tmp_path / "m" / "model.onnx")
    assert (tmp_path / "m" / PARAM).read_text() == form.param
    assert (tmp_path / "m" / WEIGHTS).read_bytes() == b"".join(ncnn_weights(form, tmp_path / "m" / "model.onnx"))


def test_another_model_in_their_folder_removes_them(cli, tmp_path):
    for name in NCNN_FILES:
        (tmp_path / name).write_bytes(b"of another model")
    ran = cli(main, *ARGUMENTS[:-2], "-o", tmp_path)
    assert ran.code == 0, ran.err
    assert f"removed       {PARAM}, of the model that was here before\n" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_every_whole_float_graph_has_the_form_unless_its_weights_are_summed(exported):
    for options in ({}, {"precision": "fp16"}, {"mean_channel": True}, {"batch": None}, {"for_": "tensorrt"}):
        assert read_form(exported(**options) / "model.onnx").scales == {}
    for options in ({"for_": "onnxruntime"}, {"for_": "openvino"}):
        keys = [entry.key for entry in onnx.load(exported(**options) / "model.onnx").metadata_props]
        assert FORM_KEY not in keys


def test_split_models_do_not_go_with_it(cli, tmp_path):
    ran = cli(main, *ARGUMENTS, "--split", "-o", tmp_path / "m")
    assert (ran.code, (tmp_path / "m").exists()) == (2, False)
    assert ran.err == "salema-export: --for ncnn --split: ncnn runs whole models; leave one of them out\n"


@pytest.mark.parametrize(("extra", "code"), [((), 0), (("--for", "ncnn"), 1)])
def test_where_ncnn_is_not_installed(cli, tmp_path, monkeypatch, extra, code):
    monkeypatch.setitem(sys.modules, "ncnn", None)
    monkeypatch.delitem(sys.modules, "salema.runtime.backends.ncnn_session", raising=False)
    ran = cli(main, *ARGUMENTS[:-2], *extra, "-o", tmp_path / "m")
    assert ran.code == code
    assert "ncnn can't be imported" in ran.err
    assert "pip install 'salema[ncnn]'" in ran.err
    assert ("not checked   the form for ncnn: " in ran.err) == (code == 0)
    assert (tmp_path / "m").exists() == (code == 0)


def test_a_network_that_is_written_wrongly_gets_no_name(cli, tmp_path, monkeypatch):
    """A mean that is off by a grey level: the ONNX file is right, so only ncnn's own check can tell."""
    monkeypatch.setattr("salema.export.graph.to_ncnn.MEAN_BGR", (104.939, 116.779, 123.68))
    ran = cli(main, *ARGUMENTS, "-o", tmp_path / "m")
    assert ran.code == 1
    assert "nothing was written" in ran.err
    assert not (tmp_path / "m").exists()


def test_split_models_do_not_go_into_its_folder(cli, tmp_path):
    (tmp_path / PARAM).write_text("")
    ran = cli(main, *ARGUMENTS[:-2], "--split", "-o", tmp_path)
    assert ran.code == 2
    assert f"holds {PARAM}, a model exported without --split" in ran.err
