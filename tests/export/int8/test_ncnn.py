"""INT8 for ncnn: the form in the ONNX file is in INT8, and the graph itself stays in float."""

import json
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from int8_model import SIZE_HW, WEIGHTS

from salema.export.cli import main
from salema.export.exporter import export_model
from salema.export.int8.footage import gather
from salema.export.int8.quantize import SCHEMES, calibrate
from salema.export.int8.to_int8 import _choose
from salema.export.options import ExportOptions
from salema.export.weights.seeded import moving_disc, seeded_state_dict
from salema.runtime import load
from salema.runtime.backends.ncnn_form import ncnn_weights, read_form
from salema.runtime.backends.ncnn_session import load_net, to_mat
from salema.runtime.backends.opening import open_session
from salema.runtime.backends.ort_session import OrtSession
from salema.runtime.errors import MissingDependencyError, VerificationError
from salema.runtime.model_folder import NCNN_FILES
from salema.runtime.onnx_metadata import read_spec

FLAG = 0x000D4B38


def rows(folder):
    """What the form says of each convolution, by its name: kind, name, counts, input, output, parameters."""
    return {row[1]: row for row in read_form(folder / "model.onnx").rows() if row[0] == "Convolution"}


def convolutions(folder):
    """Parameters of the convolutions, by name."""
    return {name: dict(each.split("=") for each in row[6:]) for name, row in rows(folder).items()}


def test_the_int8_form_passes_the_gate_and_has_a_quarter_of_the_size(int8, exported):
    result = int8(for_="ncnn")
    folder = result.paths[0].parent
    assert result.int8.accuracy.cc >= 0.99
    assert (result.int8.activations, result.int8.weight_bits) == ("int8", 8)
    assert result.int8.float_layers == result.spec.float_layers == ("salgan.0", "salgan.60")
    plain = exported(WEIGHTS, imgsz_hw=SIZE_HW, for_="ncnn")
    assert 0.2 < (folder / NCNN_FILES[1]).stat().st_size / (plain / NCNN_FILES[1]).stat().st_size < 0.3
    assert result.spec.precision == "int8"
    with open_session(folder, "ncnn") as session:
        assert session.spec == result.spec
        assert session.computes_in == "int8"
    assert read_spec(folder / "model.onnx") == replace(result.spec, precision="fp32", float_layers=())
    assert onnx.load(folder / "model.onnx").graph == onnx.load(plain / "model.onnx").graph


def test_weights_are_rounded_per_channel_and_the_ends_are_not(int8):
    folder = int8(for_="ncnn").paths[0].parent
    data, arrays, place = (folder / NCNN_FILES[1]).read_bytes(), seeded_state_dict("salema", 4), 12
    for name, parameters in convolutions(folder).items():
        weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
        flag = int.from_bytes(data[place : place + 4], "little")
        ends = name in {"salgan.0", "salgan.60"}
        assert (flag, parameters.get("8")) == ((0, None) if ends else (FLAG, "1"))
        place += 4
        if ends:
            place += 4 * weight.size
        else:
            rounded = np.frombuffer(data, np.int8, weight.size, place).reshape(weight.shape)
            place += -(-weight.size // 4) * 4
        np.testing.assert_array_equal(np.frombuffer(data, "<f4", bias.size, place), bias)
        place += 4 * bias.size
        if not ends:
            scales = np.frombuffer(data, "<f4", bias.size, place).reshape(-1, 1, 1, 1)
            np.testing.assert_allclose(scales.ravel(), 127 / np.abs(weight).max(axis=(1, 2, 3)), rtol=1e-6)
            assert np.abs(rounded / scales - weight).max() <= (0.5001 / scales).max()
            place += 4 * bias.size + 4
    assert place == len(data)


def test_layers_compute_what_their_numbers_say(int8, clip):
    """Each layer's own input, rounded as the file says, times the rounded weights: integers, exact in float64."""
    folder = int8(for_="ncnn").paths[0].parent
    with OrtSession(folder / "model.onnx", "cpu") as exact:
        ranges = calibrate(folder / "model.onnx", exact, gather(str(clip), 24, *SIZE_HW).runs)
    form = read_form(folder / "model.onnx")
    net = load_net(form.param, ncnn_weights(form, folder / "model.onnx"), "int8")
    arrays = seeded_state_dict("salema", 4)
    extractor = net.create_extractor()
    for name, value in (("frame", moving_disc(1, *SIZE_HW)[0].transpose(2, 0, 1)), ("mix", np.ones(1))):
        extractor.input(name, to_mat(value))
    extractor.input("ema30_in", to_mat(np.zeros((128, 2, 3))))
    rounded = {name: row for name, row in rows(folder).items() if "8=1" in row}
    assert len(rounded) == 25
    for name, row in rounded.items():
        given, found = (torch.from_numpy(np.array(extractor.extract(blob)[1])).double() for blob in (row[4], name))
        entering = 127 / max(map(abs, ranges[name]))
        weight, bias = (torch.from_numpy(arrays[f"{name}.{part}"]).double() for part in ("weight", "bias"))
        scales = 127 / weight.abs().amax((1, 2, 3), keepdim=True)
        sums = torch.conv2d((given * entering).round().clip(-127, 127), (weight * scales).round(), padding=1)
        expected = sums / (scales.view(-1, 1, 1) * entering) + bias.view(-1, 1, 1)
        expected = expected.relu() if "9=1" in row else expected
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max(), name


@pytest.mark.parametrize("options", [{"arch": "salclstm56"}, {"batch": 2, "mean_channel": True}], ids=str)
def test_other_variants(int8, options):
    last, kept = ("final_convs.4", ("final_convs.2", "Gates")) if "arch" in options else ("salgan.60", ())
    result = int8(for_="ncnn", float_layers=kept, **options)  # so narrow a SalCLSTM needs these and more in float
    assert result.int8.accuracy.cc >= 0.99
    assert {"salgan.0", last, *kept} <= set(result.spec.float_layers)
    assert set(result.spec.float_layers) == set(result.int8.float_layers)
    assert list(convolutions(result.paths[0].parent))[-1] == last


def test_the_command_and_auto(cli, clip, tmp_path):
    arguments = ("--weights", WEIGHTS, "--imgsz", *SIZE_HW, "--engine", "none", "--int8", "--calib", clip)
    ran = cli(
        main,
        *arguments,
        "--calib-frames",
        16,
        "--for",
        "ncnn",
        "--float-layer",
        "salgan.2",
        "-o",
        tmp_path / "m",
        "--json",
    )
    assert ran.code == 0
    assert "checking      INT8 in ncnn against FP32 on 16 held-out frames, 60 steps" in ran.err
    assert json.loads(ran.out)["int8"]["float_layers"] == ["salgan.0", "salgan.60", "salgan.2"]
    assert "8" not in convolutions(tmp_path / "m")["salgan.2"]
    with load(tmp_path / "m", device="cpu") as stream:
        assert stream.spec.precision == "int8"
        assert stream.description.startswith("ncnn ")
        assert stream.description.endswith("(auto: only its form for ncnn is in INT8)")


@pytest.mark.parametrize(("gain", "bits"), [(0.0004, 8), (0.0006, 7), (-0.1, 8)])
def test_fewer_bits_must_be_better_beyond_what_a_few_frames_can_tell(gain, bits):
    class Scored:
        """Trials of which only the scores matter."""

        layers = ("a", "b")

        class form:  # noqa: N801 - as an attribute
            scheme = SCHEMES["any"]

        def least_cc(self, weight_bits, kept):
            return 0.995 + gain * (weight_bits == 7)

    assert _choose(Scored(), ExportOptions(for_="any"), lambda _: None).weight_bits == bits


def test_in_openvino_widths_are_tried_there(clip, tmp_path):
    said = []
    options = {"imgsz_hw": SIZE_HW, "precision": "int8", "calib": str(clip), "calib_frames": 16, "for_": "openvino"}
    result = export_model(WEIGHTS, tmp_path / "m", ExportOptions(**options), said.append)
    assert "checking      INT8 in OpenVINO against FP32 on 16 held-out frames, 60 steps" in said
    assert result.int8.accuracy.cc >= 0.99


def test_behind_a_dead_layer_nothing_enters(clip, tmp_path):
    arrays = seeded_state_dict("salema", 16)
    arrays["salgan.44.weight"], arrays["salgan.44.bias"] = (
        arrays["salgan.44.weight"] * 0,
        arrays["salgan.44.bias"] * 0 - 1,
    )
    torch.save({"state_dict": {name: torch.from_numpy(array) for name, array in arrays.items()}}, tmp_path / "w.pt")
    options = {"imgsz_hw": SIZE_HW, "precision": "int8", "calib": str(clip), "calib_frames": 16, "for_": "ncnn"}
    with pytest.raises(VerificationError, match="so nothing was written"):
        export_model(str(tmp_path / "w.pt"), tmp_path / "m", ExportOptions(**options), lambda _: None)


def test_no_engine_is_made_of_the_float_file_beside(cli, clip, tmp_path):
    arguments = ("--weights", WEIGHTS, "--int8", "--calib", clip, "--for", "ncnn", "-o", tmp_path / "m")
    ran = cli(main, *arguments, "--engine", "tensorrt-rtx", "--target", "sm89")
    assert (ran.code, (tmp_path / "m").exists()) == (2, False)
    assert "--engine tensorrt-rtx: only ncnn's files are in INT8; leave out --for ncnn" in ran.err


@pytest.mark.parametrize("target", ["ncnn", "openvino"])
def test_a_broken_runtime_is_told_before_any_work(clip, tmp_path, monkeypatch, target):
    (tmp_path / target).mkdir()
    (tmp_path / target / "__init__.py").write_text("raise ImportError('broken')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == target or name.endswith(f"{target}_session")]:
        monkeypatch.delitem(sys.modules, name)
    said = []
    options = {"imgsz_hw": SIZE_HW, "precision": "int8", "calib": str(clip), "calib_frames": 16, "for_": target}
    with pytest.raises(MissingDependencyError, match="broken"):
        export_model(WEIGHTS, tmp_path / "m", ExportOptions(**options), said.append)
    assert said == []
