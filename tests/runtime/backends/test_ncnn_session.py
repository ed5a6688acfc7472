"""ncnn: parity with the published maps, its files, when `auto` takes it, memory, threads."""

import json
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from salema.export.graph.models import SaliencyStep
from salema.export.graph.to_ncnn import write_ncnn
from salema.export.weights.architecture import Architecture
from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.backends.ncnn_files import NcnnInfo
from salema.runtime.backends.opening import open_session
from salema.runtime.errors import ModelError, NewerModelError, UsageError
from salema.runtime.files.whole_files import sha256_of
from salema.runtime.model_folder import NCNN_FILES, NcnnFiles
from salema.runtime.onnx_metadata import read_spec

PARAM, WEIGHTS, FACTS = NCNN_FILES
AGAIN = "export it again with: salema-export --weights FILE --for ncnn"


@pytest.fixture(scope="module")
def whole(exported):
    """A narrow SalEMA30 with ncnn's files, which tests must not change."""
    return exported(for_="ncnn")


@pytest.fixture
def folder(whole, tmp_path):
    """A copy of it, which tests may change."""
    return shutil.copytree(whole, tmp_path / "model")


@pytest.mark.parametrize(
    ("case", "architecture"),
    [
        ("salgan", Architecture("salgan")),
        ("salema30_direct_a0.1", Architecture("salema", (30,))),
        ("salclstm30", Architecture("salclstm30")),
    ],
)
def test_the_published_code_gives_the_same_maps(exported, tmp_path, golden, seeded_arrays, disc, case, architecture):
    """Uses the full width, at which ncnn uses Winograd convolutions."""
    weights = {key: torch.from_numpy(array) for key, array in seeded_arrays(architecture.kind).items()}
    step = SaliencyStep(architecture, weights)
    spec = read_spec(exported(arch=architecture.kind) / "model.onnx")
    spec = replace(spec, states=step.state_specs(spec.height, spec.width))
    files = NcnnFiles.of(tmp_path)
    write_ncnn(step, spec, files.param, files.weights)
    files.facts.write_text(NcnnInfo(spec, "", sha256_of(files.param), sha256_of(files.weights)).to_json())
    with load(tmp_path, backend="ncnn") as stream:
        np.testing.assert_allclose([stream.step(frame) for frame in disc], golden[case], atol=1e-5)
        states = stream.snapshot()
        for index, state in enumerate(stream.spec.states):
            sums = [states[state.name].sum(dtype=np.float64), np.abs(states[state.name]).sum(dtype=np.float64)]
            np.testing.assert_allclose(sums, golden[f"{case}/state{index}_sum"], rtol=1e-5, atol=0.1)


@pytest.mark.parametrize(("width", "imgsz_hw"), [("seeded:64", (16, 16)), ("seeded:256", (48, 80))])
def test_sizes_and_widths_that_no_vector_divides(exported, imgsz_hw, width):
    """ncnn packs channels by 4, 8 or 16 and pads planes to 16 bytes."""
    folder = exported(width, imgsz_hw=imgsz_hw, ema_locs=(1,), for_="ncnn")
    with load(folder, backend="ncnn") as stream, load(folder, backend="onnxruntime", device="cpu") as other:
        for frame in moving_disc(3, *imgsz_hw):
            np.testing.assert_allclose(stream.step(frame), other.step(frame), atol=1e-5)
        expected = other.snapshot()["ema1"]
        np.testing.assert_allclose(stream.snapshot()["ema1"], expected, atol=1e-5 * max(np.abs(expected).max(), 1))


def test_auto_takes_it_on_the_cpu_and_says_so(whole):
    for path in (whole, whole / "model.onnx"):
        with open_session(path, device="cpu") as session:
            assert session.description.startswith("ncnn ")
            assert session.description.endswith(" threads (auto: its files are there)")
    with open_session(whole / PARAM) as session:
        assert session.description.startswith("ncnn ")
    with open_session(whole, "onnxruntime", "cpu") as session:
        assert session.description.startswith("ONNX Runtime")


def test_without_ncnn_files_auto_does_not_mention_ncnn(model):
    with open_session(model, device="cpu") as session:
        assert "ncnn" not in session.description
    with pytest.raises(ModelError, match=rf"{PARAM}: missing, and ncnn needs it; {AGAIN} -o "):
        open_session(model, "ncnn")


def test_it_does_not_run_on_a_gpu(whole):
    with pytest.raises(UsageError, match="--backend ncnn --device cuda:1: it runs on the CPU only"):
        open_session(whole, "ncnn", "cuda:1")


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        (PARAM, lambda data: data.replace(b"Sigmoid", b"Sigmoit"), f"{PARAM}: not the file that {FACTS} describes"),
        (WEIGHTS, lambda data: data[:-4], f"{WEIGHTS}: not the file that {FACTS} describes"),
        (WEIGHTS, lambda data: b"", f"{WEIGHTS}: not the file that {FACTS} describes"),
        ("model.onnx", lambda data: data + b"\x72\x00", "model.onnx beside it is another by now"),
        (FACTS, lambda data: data[:100], f"{FACTS}: can't be used"),
        (FACTS, lambda data: b"[]", f"{FACTS}: can't be used"),
        (FACTS, lambda data: data.replace(b'"record_version": 2', b'"record_version": 1'), "another version of salema"),
        (FACTS, lambda data: data.replace(b'"height": 64', b'"height": "x"'), "metadata is damaged"),
        (FACTS, None, f"{FACTS}: missing"),
        (WEIGHTS, None, f"{WEIGHTS}: missing"),
    ],
)
def test_files_that_are_damaged_missing_or_of_another_model(folder, disc, name, change, sentence):
    if change is None:
        (folder / name).unlink()
    else:
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(change(before))
        assert (folder / name).read_bytes() != before
    with pytest.raises(ModelError, match=sentence) as error:
        open_session(folder, "ncnn")
    assert "export it again" in str(error.value)
    with load(folder, device="cpu") as stream:
        assert stream.description.startswith("ONNX Runtime")
        assert "ncnn, which is faster on the CPU, passed over: " in stream.description
        assert stream.step(disc[0]).shape == (64, 96)


def test_a_newer_model_is_reported_as_newer_whatever_its_record_holds(folder):
    facts = json.loads((folder / FACTS).read_text()) | {"record_version": 9, "more": 1}
    facts["spec"]["spec_version"] = 99
    (folder / FACTS).write_text(json.dumps(facts))
    with pytest.raises(NewerModelError, match="in model format 99, and this version reads up to .*; upgrade with: pip"):
        open_session(folder, "ncnn")


def test_the_three_files_run_without_the_onnx_file(folder, whole, disc):
    (folder / "model.onnx").unlink()
    with load(folder, device="cpu") as stream, load(whole, backend="ncnn") as other:
        np.testing.assert_array_equal(stream.step(disc[0]), other.step(disc[0]))


def test_the_facts_are_those_of_the_onnx_file(whole):
    with open_session(whole, "ncnn") as session, open_session(whole, "onnxruntime", "cpu") as other:
        assert session.spec == other.spec
    assert set(json.loads((whole / FACTS).read_text())) == {
        *("spec", "onnx_sha256", "param_sha256", "bin_sha256", "record_version")
    }


def test_where_it_is_not_installed(whole):
    code = f"""
import sys
sys.modules["ncnn"] = None
from salema.runtime.backends.opening import open_session
from salema.runtime.errors import MissingDependencyError
print(open_session({str(whole)!r}, device="cpu").description)
try:
    open_session({str(whole)!r}, "ncnn")
except MissingDependencyError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stderr == ""
    auto, explicit = ran.stdout.splitlines()
    assert auto.startswith("ONNX Runtime")
    assert auto.endswith(f" (auto: ncnn, which is faster on the CPU, passed over: {explicit})")
    assert explicit.startswith("ncnn can't be imported (")
    assert explicit.endswith("install it with: pip install 'salema[ncnn]'")


def test_memory_does_not_grow(whole):
    """Runs in its own process, where nothing else takes or frees memory."""
    code = f"""
import numpy as np
from salema.runtime import load
with load({str(whole)!r}, backend="ncnn") as stream:
    for _ in range(2):
        for _ in range(150):
            stream.step(np.zeros((64, 96, 3), np.uint8))
        print(open("/proc/self/statm").read().split()[1])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    before, after = map(int, ran.stdout.split())
    assert (after - before) * resource.getpagesize() < 150 * 24_576 / 4  # a quarter of a map for each step


def test_sessions_and_threads_do_not_disturb_each_other(whole, disc):
    def run(_):
        with load(whole, backend="ncnn") as stream:
            return np.stack([stream.step(frame) for frame in disc])

    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(run, range(8)))
    for maps in runs[1:]:
        np.testing.assert_array_equal(maps, runs[0])


def test_one_session_serves_several_threads(whole, disc):
    with open_session(whole, "ncnn") as session:
        states = session.from_host({"ema30": np.zeros((1, 32, 4, 6), np.float32)})
        first = np.ones(1, np.float32)
        expected = [session.step(frame[None], states, first)[0] for frame in disc]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda frame: session.step(frame[None], states, first)[0], [*disc] * 4))
    np.testing.assert_array_equal(found, expected * 4)
