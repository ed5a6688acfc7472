"""Every command in a home of its own, where no network is: nothing is looked up, and nothing is left behind."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from int8_model import SIZE_HW, WEIGHTS
from synthetic import write_dataset
from videos import write_clip

from salema.export.weights.seeded import moving_disc

HERE = Path(__file__).parent
MAINS = {
    "salema-bench": "salema.benchmarks.speed.cli:main",
    "salema-doctor": "salema.runtime.doctor.cli:main",
    "salema-eval": "salema.benchmarks.scores.cli:main",
    "salema-export": "salema.export.cli:main",
    "salema-run": "salema.runtime.cli.run:main_of_process",
    "salema-serve": "salema.runtime.serve.cli:main_of_process",
    "salema-train": "salema.training.cli:main",
}
# Ray's own look-ups as it starts: this machine's address, and whether it is a cloud's. Usage reports are off.
RAY = {f"getaddrinfo {name}" for name in ("8.8.8.8", "2001:4860:4860::8888", socket.gethostname())}
RAY |= {f"getaddrinfo {name}" for name in ("169.254.169.254", "metadata.google.internal")}
PLOT = [".cache", ".config"]  # Matplotlib's list of fonts, with --plot; docs/cpu.md says so


@pytest.fixture(scope="module")
def no_network(tmp_path_factory):
    """A library that notes and refuses whatever leaves the machine."""
    path = tmp_path_factory.mktemp("preload") / "no_network.so"
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, str(HERE / "no_network.cpp"), "-o", str(path), "-ldl"], check=True)
    return path


@pytest.fixture
def scratch():
    """A folder for temporary files, of a short name: a socket's path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="s") as folder:
        yield folder


@pytest.fixture
def alone(tmp_path, no_network, scratch):
    """Runs Python code with arguments; gives what it tried to reach, and what it left in its home."""
    home, log = tmp_path / "home", tmp_path / "reached"

    def run(code, *arguments):
        home.mkdir()
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
        own = {"HOME": home, "TMPDIR": scratch, "LD_PRELOAD": no_network, "NO_NETWORK_LOG": log}
        env = kept | {name: str(path) for name, path in own.items()}
        ran = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], env=env, cwd=tmp_path, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        reached = log.read_text().splitlines() if log.exists() else []
        return reached, sorted(path.name for path in home.iterdir())

    return run


def start(command):
    module, _, function = MAINS[command].partition(":")
    code = f"import sys; from {module} import {function} as main; sys.argv[0] = {command!r}; main()"
    quick = {
        "salema-bench": (
            "from salema.benchmarks.machine import peaks, rates; "
            "rates._LEAST_S, rates._CPU_SIZE, rates._COPY_BYTES, peaks._BURST_S = 0.01, 256, 1 << 24, 0.0005; "
        ),
        "salema-serve": (  # once it serves it is stopped
            "import os, threading; from salema.runtime.serve import running; "
            "running.show = lambda _: threading.Timer(1, os.kill, (os.getpid(), 15)).start(); "
        ),
        "salema-export": "from salema.export.int8 import to_int8; to_int8.STEPS = 60; ",
    }
    return quick.get(command, "") + code


def commands(exported, clip, folder):
    data = write_dataset(folder / "data", "other", frames=3)
    longer = write_clip(folder / "longer.mp4", moving_disc(24, *SIZE_HW))
    on_dataset = ("--dataset", "other", "--src", data.source)
    ours = exported()
    return {
        "doctor": ("salema-doctor", "--model", ours),
        "run": ("salema-run", clip, "--model", ours, "--backend", "onnxruntime"),
        "run in OpenVINO": ("salema-run", clip, "--model", ours, "--backend", "openvino"),
        "run in ncnn": ("salema-run", clip, "--model", exported(for_="ncnn"), "--backend", "ncnn"),
        "run on Ray": ("salema-run", *on_dataset, "--dst", folder / "maps", "--model", ours, "--ray", "local"),
        "serve": ("salema-serve", "--source", clip, "--model", ours, "--port", 0),
        "eval": ("salema-eval", *on_dataset, "--model", ours, "--plot", "plot.png"),
        "export": (
            *("salema-export", "--weights", WEIGHTS, "--imgsz", *SIZE_HW, "--save-weights", "w.safetensors"),
            *("--for", "openvino", "--int8", "--calib", longer, "--calib-frames", 8, "--float-layer", "salgan.0"),
        ),
        "bench": (
            *("salema-bench", "--model", ours, "--compare", "pytorch,onnxruntime,openvino"),
            *("--duration", 0.05, "--plot", "plot.png"),
        ),
        "train": (
            *("salema-train", *on_dataset, "--val", "2:1", "--width", "1/8", "--imgsz", *SIZE_HW, "--device", "cpu"),
            *("--epochs", 1, "--clip-frames", 1, "--half-size", 0),
        ),
    }


NAMES = (
    *("doctor", "run", "run in OpenVINO", "run in ncnn", "serve", "eval"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("run on Ray", "export", "bench", "train")),
)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_keeps_to_itself(alone, exported, small_clip, tmp_path, name):
    made = commands(exported, small_clip, tmp_path)
    assert len(made) == len(NAMES)
    assert {command for command, *_ in made.values()} == set(MAINS)
    command, *arguments = made[name]
    reached, left = alone(start(command), *arguments)
    assert set(reached) <= (RAY if "--ray" in arguments else set())
    usual = PLOT if "--plot" in arguments or name == "train" else []
    assert left == ([".ray"] if "--ray" in arguments else usual)  # Ray's key for what talks to its cluster


@pytest.mark.parametrize(
    "module", ["salema.export.int8.quantize", "salema.benchmarks.peers.peers", "salema.runtime.backends.ort_session"]
)
def test_telemetry_is_off_before_onnx_runtime_loads_whichever_module_is_imported_first(alone, module):
    code = f"""
import os, sys
class Watch:
    def find_spec(self, name, *_):
        if name == "onnxruntime":
            print(os.environ["ORT_DISABLE_TELEMETRY"])
sys.meta_path.insert(0, Watch())
import {module}
assert {module != "salema.benchmarks.peers.peers"} == ("onnxruntime" in sys.modules)
"""
    assert alone(code) == ([], [])


def test_who_calls_out_is_seen(alone):
    code = """
import socket
try:
    socket.create_connection(("nowhere.invalid", 80))
except OSError:
    pass
with socket.socket() as tcp:
    assert tcp.connect_ex(("192.0.2.1", 80))
with socket.socket(type=socket.SOCK_DGRAM) as udp:
    try:
        udp.sendto(b"", ("192.0.2.1", 53))
    except OSError:
        pass
"""
    assert alone(code)[0] == ["getaddrinfo nowhere.invalid", "connect", "sendto"]
