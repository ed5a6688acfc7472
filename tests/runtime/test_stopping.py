import fcntl
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from contextlib import closing

import numpy as np
import onnx
import pytest
from limits import script
from videos import outputs, probe, write_clip

from salema.export.weights.seeded import moving_disc
from salema.runtime import load, stopping
from salema.runtime.output.csv_sinks import CsvSink
from salema.runtime.output.outputs import Outputs
from salema.runtime.output.provenance import read_provenance
from salema.runtime.run.pipeline import process_video
from salema.runtime.run.videos import run_jobs
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.source import find_sources
from salema.runtime.stopping import obey_lost_signal, signals_taken, stop_requested

pytestmark = pytest.mark.usefixtures("hears_hangup")
# What a command does when it is asked to end, said aloud: begins, is asked, takes its time (here: as long as its stdin
# gives nothing), ends.
SLOW_TO_END = """
import sys, time
from salema.runtime import stopping
from salema.runtime.stopping import signals_taken, stop_requested
from salema.runtime.output.outputs import Outputs
stopping._PATIENCE_S = float(sys.argv[1])
with signals_taken(to_the_end=True), stop_requested() as stop:
    print("begun", flush=True)
    while not stop.wait(0.01): pass
    print("asked", flush=True)
    sys.stdin.readline()
    print("finished", flush=True)
time.sleep(0.2)
sys.exit(130)
"""


def start(stdin=subprocess.PIPE, patience_s=stopping._PATIENCE_S, **options):
    command = [sys.executable, "-c", SLOW_TO_END, str(patience_s)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=stdin, stdout=pipe, stderr=pipe, text=True, **options)
    assert process.stdout.readline() == "begun\n"
    return process


def ended(process):
    process.communicate(timeout=20)
    return process.returncode


@pytest.mark.parametrize("names", ["INT", "TERM", "HUP", "TERM TERM", "INT INT INT", "TERM HUP INT TERM"])
def test_the_first_signal_asks_and_repeats_change_nothing(names):
    process = start()
    for name in names.split():
        process.send_signal(signal.Signals[f"SIG{name}"])
        time.sleep(0.02)
    out, err = process.communicate("\n", timeout=20)
    assert (process.returncode, out, err) == (130, "asked\nfinished\n", "")


def test_a_signal_that_comes_into_the_waiting_for_it_is_taken():
    """The handler sets the event in the thread that holds its lock: with a plain event it waited for ever."""
    code = """
import os, signal
from salema.runtime.stopping import stop_requested
with stop_requested() as stop:
    with stop._cond:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.wait(0)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0


def test_repeats_while_python_ends_change_nothing():
    process = start(stdin=subprocess.DEVNULL)
    process.terminate()
    for _ in range(400):
        if process.poll() is not None:
            break
        process.terminate()
        time.sleep(0.001)
    assert ended(process) == 130


def test_a_third_ctrl_c_after_a_while_ends_it_at_once():
    process = start(patience_s=0.4)
    process.terminate()
    assert process.stdout.readline() == "asked\n"
    time.sleep(0.4)
    process.terminate()  # not a key that somebody presses
    time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=5)
    assert (process.returncode, out) == (-signal.SIGINT, "")


def test_a_second_ctrl_c_after_a_while_is_told_what_a_third_one_does():
    process = start(patience_s=0.4)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    time.sleep(0.4)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "still finishing files; press Ctrl-C once more to end at once\n"
    process.send_signal(signal.SIGINT)
    assert ended(process) == -signal.SIGINT


def test_nohup_is_respected():
    process = start(stdin=subprocess.DEVNULL, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.terminate()
    assert ended(process) == 130


def test_without_an_event_the_first_is_an_interrupt_and_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(KeyboardInterrupt), signals_taken():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # while things are tidied up
            time.sleep(0.01)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    with stop_requested() as stop:
        assert not stop.is_set()


def test_other_threads_leave_signals_alone():
    found = []

    def work():
        with stop_requested() as stop:
            found.append((stop.is_set(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, signal.SIG_DFL)]


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    frames = np.tile(moving_disc(50, 64, 96), (60, 1, 1, 1))
    return write_clip(tmp_path_factory.mktemp("clips") / "long.mp4", frames, audio="aac")


def begin(command, tmp_path, **options):
    """Starts `salema-run`, and returns once it has written ten maps."""
    process = subprocess.Popen([script("salema-run"), *map(str, command)], cwd=tmp_path, **options)
    deadline = time.monotonic() + 60
    while not (tmp_path / "maps/0010.png").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("names", ["TERM TERM", "HUP", "INT TERM HUP INT INT"])
def test_a_run_keeps_what_it_has_whatever_is_repeated(model, long_clip, tmp_path, names):
    options = ["-o", "o.mp4", "--maps", "maps", "--npz", "o.npz", "--csv", "o.csv"]
    process = begin(
        [long_clip, "--model", model, *options], tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for name in names.split():
        process.send_signal(signal.Signals[f"SIG{name}"])
        time.sleep(0.01)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    frames = int(out.split()[0])
    assert err.splitlines()[-1] == f"salema-run: interrupted after {frames} of 3000 frames; these are written"
    assert 10 <= frames == len(probe(tmp_path / "o.mp4")["images"]) == len(np.load(tmp_path / "o.npz")["maps"])
    assert len((tmp_path / "o.csv").read_text().splitlines()) == frames + 1
    assert [path.name for path in outputs(tmp_path)] == ["maps", "o.csv", "o.mp4", "o.npz"]


def test_a_terminal_that_goes_away_costs_nothing(model, long_clip, tmp_path):
    """As after a lost ssh: SIGHUP, and neither stdout nor stderr can be written."""
    ours, its = pty.openpty()

    def take_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    command = [long_clip, "--model", model, "-o", "o.mp4", "--maps", "maps"]
    process = begin(command, tmp_path, stdin=its, stdout=its, stderr=its, preexec_fn=take_terminal)
    os.close(its)
    os.close(ours)
    process.wait(timeout=60)
    maps = len(outputs(tmp_path / "maps"))
    assert 10 <= maps < 3000
    assert len(probe(tmp_path / "o.mp4")["images"]) == maps
    assert [path.name for path in outputs(tmp_path)] == ["maps", "o.mp4"]


def test_jobs_that_nobody_waits_for_are_not_begun(model):
    begun = []

    def work(item, _stream):
        begun.append(item)
        time.sleep(0.05)
        return item

    with closing(run_jobs(range(100), lambda: load(model), work, jobs=2)) as results:
        next(results)
    assert len(begun) < 8


def test_a_signal_while_files_are_finished_has_ended_nothing(model, small_clip, tmp_path, monkeypatch):
    stop = threading.Event()
    finish = CsvSink.finish

    def late(sink, **options):
        stop.set()
        return finish(sink, **options)

    monkeypatch.setattr(CsvSink, "finish", late)
    (source,) = find_sources([str(small_clip)])
    with load(model) as stream, Playback(source, stop=stop) as playback:
        summary = process_video(stream, playback, Outputs(csv=tmp_path / "o.csv"), stop=stop)
    assert (summary.frames, summary.interrupted, stop.is_set()) == (12, False, True)
    made = read_provenance(tmp_path / "o.csv")
    assert (made.complete, made.why_incomplete) == (True, None)


def test_a_step_that_never_ends_does_not_keep_a_signal_waiting(model, small_clip, tmp_path):
    """A graph with a `Loop` of 2^62 turns: a stranger's model may have one."""
    shutil.copytree(model, tmp_path / "hostile")
    proto = onnx.load(tmp_path / "hostile/model.onnx")
    for node in proto.graph.node:
        node.output[:] = ["made" if name == "saliency" else name for name in node.output]
    helper, kinds = onnx.helper, onnx.TensorProto
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Cos", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("turn", kinds.INT64, []),
            helper.make_tensor_value_info("go", kinds.BOOL, []),
            helper.make_tensor_value_info("x", kinds.FLOAT, None),
        ],
        [helper.make_tensor_value_info("go_on", kinds.BOOL, []), helper.make_tensor_value_info("y", kinds.FLOAT, None)],
    )
    proto.graph.initializer.append(helper.make_tensor("turns", kinds.INT64, [], [2**62]))
    proto.graph.initializer.append(helper.make_tensor("yes", kinds.BOOL, [], [True]))
    proto.graph.node.append(helper.make_node("Loop", ["turns", "yes", "made"], ["saliency"], body=body))
    onnx.save(proto, tmp_path / "hostile/model.onnx")
    command = [script("salema-run"), small_clip, "--model", "hostile", "--backend", "onnxruntime", "-o", "o.mp4"]
    process = subprocess.Popen(
        list(map(str, command)), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".o.*.partial.mp4")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.5)
    begun_s = time.monotonic()
    process.terminate()
    _, err = process.communicate(timeout=40)
    assert process.returncode == 130, err
    assert time.monotonic() - begun_s < 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile"]


def test_a_signal_that_a_finaliser_swallowed_is_obeyed_later(monkeypatch):
    class Swallows:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    swallowed = []
    with signals_taken():
        obey_lost_signal()  # none came
        with monkeypatch.context() as patch:
            patch.setattr(sys, "unraisablehook", lambda event: swallowed.append(event.exc_type))
            Swallows()
        assert swallowed == [KeyboardInterrupt]
        with pytest.raises(KeyboardInterrupt):
            obey_lost_signal()
    obey_lost_signal()  # the command is over
