import gc
import hashlib
import os
import pickle
import signal
import sys
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings

from salema.benchmarks.gpu.available import unavailable
from salema.export.weights.seeded import moving_disc, seeded_state_dict
from salema.kernels.errors import BackendError
from salema.kernels.gpus import list_gpus

HERE = Path(__file__).parent
CLIPS = HERE.parent / ".cache/clips"
SIZE_HW = (64, 96)
settings.register_profile("house", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("house")


WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
if WORKER and hasattr(os, "sched_setaffinity"):
    # One core for each of pytest-xdist's workers, before PyTorch and others count them: with threads for all cores in
    # each worker, those that wait keep the others from theirs, and some tests took a hundred times as long.
    CORES = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {CORES[int(WORKER.removeprefix("gw")) % len(CORES)]})


# Files of few tests that take long, and those of most work.
LONG = (
    *("runtime/run/test_soak.py", "runtime/test_session.py", "test_docs.py", "kernels/test_compile.py"),
    *("kernels/ops/test_sanitizers.py", "benchmarks/gpu/test_rehearsal.py", "export/int8/test_to_int8.py"),
    *("benchmarks/peers/test_peers.py", "export/int8/test_ncnn.py", "test_package.py", "test_nothing_sent.py"),
    *("export/graph/test_models.py", "kernels/device/test_host_driver.py", "kernels/ops/test_ema.py"),
    *("runtime/fleet/test_fleet.py", "training/test_run.py", "training/test_resume.py", "export/test_cli.py"),
    "export/engine/test_to_engine.py",
)


def pytest_collection_modifyitems(config, items):
    """What takes long comes first: where pytest-xdist gives whole files to its workers, the last ones are short.

    Elsewhere the order is the one asked for: `make gpu-check` names its files by worth.
    """
    if not hasattr(config, "workerinput"):  # not WORKER, which the processes that a worker starts have too
        return
    place = {HERE / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path, len(LONG)))


def pytest_collection_finish(session):
    if "torch" in sys.modules:
        from traced_once import read_operators_once

        read_operators_once()
    gc.collect()
    gc.freeze()  # Python looks for garbage in what the tests make, and not in half a million objects of modules
    gc.set_threshold(50_000, 20)  # and not at every 700 of them: a ninth of the time of an export


def pytest_runtest_setup(item):
    if gpu := item.get_closest_marker("gpu"):
        try:
            list_gpus()
        except BackendError as error:
            pytest.skip(str(error))
        for backend in gpu.args:
            if why := unavailable(backend):
                pytest.skip(why)
    if item.get_closest_marker("bf16"):
        from salema.runtime.backends.openvino_session import capabilities, ov

        if "BF16" not in capabilities(ov.Core()):
            pytest.skip("this CPU has no bfloat16")


@pytest.fixture
def hears_hangup():
    """SIGHUP is not ignored, nor by the processes that a test starts: under `nohup` it would be."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys, monkeypatch):
    """Runs a command in this process as its console script would; gives exit code, stdout, stderr."""

    def run(main, *args):
        monkeypatch.setattr(sys, "argv", [main.__module__, *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Ran(stop.value.code or 0, out, err)

    return run


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Gives what a function makes in a folder that it is given: once a run, for all of pytest-xdist's workers."""
    base = tmp_path_factory.getbasetemp()
    done = {}

    def give(make, *key):
        if key not in done:
            name = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
            folder = (base.parent if WORKER else base) / f"once-{name}"
            made = folder.with_suffix(".pickle")
            with FileLock(folder.with_suffix(".lock")):
                if not made.is_file():
                    folder.mkdir(exist_ok=True)
                    made.write_bytes(pickle.dumps(make(folder)))
            done[key] = pickle.loads(made.read_bytes())
        return done[key]

    return give


@pytest.fixture(scope="session", autouse=True)
def _traced_once(once):
    if "torch" not in sys.modules:
        yield
        return
    from traced_once import trace_once

    with pytest.MonkeyPatch.context() as patch:
        trace_once(patch, once)
        yield


@pytest.fixture(scope="session", autouse=True)
def _quick_rates():
    """The machine's own rates in hundredths of a second instead of seconds, in every case of salema-bench.

    A product in float16 or INT8 that the CPU only emulates takes a second at the true size.
    """
    from salema.benchmarks.machine import peaks, rates

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"_LEAST_S": 0.01, "_CPU_SIZE": 256, "_COPY_BYTES": 1 << 24}.items():
            patch.setattr(rates, name, value)
        patch.setattr(peaks, "_BURST_S", 0.0005)
        yield


@pytest.fixture
def traced_anew(monkeypatch):
    """For tests of the tracing itself: `torch.onnx.export` as it is."""
    import torch

    monkeypatch.setattr(torch.onnx, "export", getattr(torch.onnx.export, "__wrapped__", torch.onnx.export))


@pytest.fixture
def steady_x264(monkeypatch):
    """For tests that compare two encodes: x264 without its macroblock tree.

    With it and B-frames, x264 (build 165) gives other bytes each time on CPUs with AVX-512. We use no B-frames, and 240
    runs of such a test passed; but one, in a whole run of the tests, did not, and nothing else in it is left to chance.
    """
    from salema.runtime.video import video_writer

    for options in (video_writer._X264, video_writer._X264_LIVE):
        monkeypatch.setitem(options, "x264-params", f"{options['x264-params']}:mbtree=0")


def _as_if_tried(folder):
    """Leaves a trial in which ONNX Runtime was the fastest: else which backend `auto` takes would be left to chance."""
    from salema.runtime.backends.ncnn_form import FORM_KEY
    from salema.runtime.backends.tuning import Record, Trial, installed
    from salema.runtime.cpu import usable_cores
    from salema.runtime.onnx_metadata import read_metadata, read_spec

    file = folder / "model.onnx"
    if file.exists():
        backends = [name for name in installed() if name != "ncnn" or read_metadata(file, FORM_KEY)]
        times_ms = {name: 1.0 if name == "onnxruntime" else 1000.0 for name in backends}
        for threads in {1, usable_cores()}:  # with --jobs each of several networks gets one core, where there are two
            Record(folder, read_spec(file), backends, threads).keep(Trial(times_ms))


@pytest.fixture(scope="session")
def exported(once):
    """Exports a narrow network, once for each set of options."""

    def export(weights="seeded:16", **options):
        from salema.export.exporter import export_model
        from salema.export.options import ExportOptions

        def make(folder):
            chosen = ExportOptions(**{"imgsz_hw": SIZE_HW, **options})
            result = export_model(weights, folder, chosen, lambda _: None)
            _as_if_tried(folder)
            return result

        return once(make, "export", weights, *sorted(options.items())).paths[0].parent

    return export


@pytest.fixture(scope="session")
def model(exported):
    """A narrow SalEMA30 at 64x96."""
    return exported()


@pytest.fixture(scope="session")
def nano_model(exported):
    """The trained network that ships, at its own size: where maps must make sense."""
    return exported("nano", imgsz_hw=(192, 256))


@pytest.fixture(scope="session")
def seeded_arrays():
    """Full-size seeded weights by family, made once."""
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = seeded_state_dict(kind)
        return made[kind]

    return make


@pytest.fixture(scope="session")
def golden():
    with np.load(HERE / "golden/maps_64x96.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="session")
def disc():
    """Four BGR frames at the golden size."""
    return moving_disc(4, *SIZE_HW)


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory):
    """Twelve frames of 96x64 with sound."""
    from videos import write_clip  # the tests of a GPU need no PyAV

    path = tmp_path_factory.mktemp("clips") / "disc.mp4"
    return write_clip(path, moving_disc(12, *SIZE_HW), audio="aac")


@pytest.fixture(scope="session")
def natural_clip(tmp_path_factory):
    """A natural clip that `make` fetched, or a synthetic one of the same length where it could not."""
    from videos import write_clip

    fetched = CLIPS / "carphone_pristine.mp4"
    if fetched.is_file():
        return fetched
    path = tmp_path_factory.mktemp("clips") / "synthetic.mp4"
    return write_clip(path, moving_disc(120, 144, 176), rate=Fraction(30000, 1001))
