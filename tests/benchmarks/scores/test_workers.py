"""Worker processes of `salema-eval`, in processes of their own: pytest's has threads, and is not forked."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path

import pytest
from eval_maps import predict
from synthetic import write_dataset

from salema.benchmarks.scores.workers import Pool, working

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads do it")
ENVIRONMENT = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("workers")
    made = write_dataset(root / "data", "other", videos=5, frames=9)
    return made, predict(made, root / "pred")


def run(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)


def evaluate(data, *options):
    made, pred = data
    command = (Path(sys.executable).parent / "salema-eval", "--pred", pred, "--gt", made.truth, "--dataset", "other")
    ran = subprocess.run([*map(str, command), *map(str, options)], capture_output=True, text=True, timeout=60)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("protocol", ["salema", "dhf1k", "exact"])
def test_scores_are_the_same_whatever_the_number_of_processes(data, tmp_path, protocol):
    for jobs in (1, 2, 5):
        code, _, said = evaluate(data, "--protocol", protocol, "--jobs", jobs, "--json", tmp_path / f"{jobs}.json")
        assert code == 0, said
    one, *more = ((tmp_path / f"{jobs}.json").read_text() for jobs in (1, 2, 5))
    assert more == [one, one]
    assert json.loads(one)["models"][0]["frames"] == 45


SPIED = """
import os, sys
from pathlib import Path
from salema.benchmarks.scores import scoring
from salema.benchmarks.maps.ground_truth import list_truth
from salema.benchmarks.maps.predictions import PredictedMaps
from salema.benchmarks.metrics.protocols import PROTOCOLS
truth = list_truth("other", Path(sys.argv[1]))
sources = [PredictedMaps(root=Path(sys.argv[2]), dataset="other", truth=truth)]
score_frame, seen = scoring.score_frame, Path(sys.argv[3])
def spied(*given):
    with seen.open("a") as file:
        print(os.getpid(), file=file)
    return score_frame(*given)
scoring.score_frame, counts = spied, []
scoring.score_dataset(sources, truth, PROTOCOLS["exact"], jobs=2, progress=counts.append)
pids = seen.read_text().split()
print(sum(counts), len(pids), str(os.getpid()) in pids)
"""


@pytest.mark.parametrize(("frames", "found"), [(9, "90 45 False"), (6, "60 30 True")])
def test_many_frames_are_scored_by_processes_and_few_are_not(tmp_path, frames, found):
    made = write_dataset(tmp_path / "data", "other", videos=5, frames=frames)
    ran = run(SPIED, made.truth, predict(made, tmp_path / "pred"), tmp_path / "seen")
    assert ran.stdout == f"{found}\n", ran.stderr


def test_failures_in_worker_processes_are_told_as_in_one_process(tmp_path):
    made = write_dataset(tmp_path / "data", "other", videos=5, frames=9)
    pred = predict(made, tmp_path / "pred")
    (pred / made.videos[1] / f"{made.frame_names[2]}.png").write_bytes(b"no image")
    (made.truth / made.videos[3] / "fixation" / f"{made.frame_names[0]}.png").write_bytes(b"no image")
    found = [evaluate((made, pred), "--jobs", jobs) for jobs in (1, 2)]
    assert found[0] == found[1]
    assert found[0][0] == 1
    assert "2 files are at fault" in found[0][2]
    strict = evaluate((made, pred), "--jobs", 2, "--strict")
    assert strict[0] == 1
    assert strict[2].startswith("salema-eval: ")
    assert "Traceback" not in strict[2]


BEGUN = """
import os, sys, time
from salema.benchmarks.scores.workers import PROCESSES, working
from salema.runtime.errors import exit_on_error
def work(number):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep({seconds})
def print_nothing(frames):
    pass
with exit_on_error("program", "give fewer --jobs"), working(work, 2, print_nothing, PROCESSES) as workers:
    futures = [workers.submit(1, number) for number in range(2)]
    for future in futures:
        future.result()
"""


def begin(seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", BEGUN.format(seconds=seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    return process, [int(process.stdout.readline()) for _ in range(2)]


def is_there(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_ends_it_in_one_sentence(number):
    process, pids = begin(0.5)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "program: interrupted\n")
    assert not any(map(is_there, pids))


def test_workers_end_with_a_process_that_is_killed():
    process, pids = begin(100)
    process.kill()
    process.communicate(timeout=30)
    until = time.monotonic() + 10
    while any(map(is_there, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_there, pids))


def test_a_killed_worker_is_told_in_one_sentence():
    process, pids = begin(2)
    os.kill(pids[0], signal.SIGKILL)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said == "program: out of memory; close other programs, or give fewer --jobs\n"


def test_a_process_with_threads_is_not_forked():
    code = """
import threading
from salema.benchmarks.scores.workers import can_fork
alone = can_fork()
done = threading.Event()
thread = threading.Thread(target=done.wait)
thread.start()
print(alone, can_fork())
done.set()
"""
    assert run(code).stdout == "True False\n"


def test_reading_maps_leaves_a_process_that_can_be_forked(data):
    code = """
import sys
from pathlib import Path
from salema.benchmarks.maps.map_files import read_fixations, read_map
from salema.benchmarks.scores.workers import can_fork
for path in Path(sys.argv[1]).glob("*/maps/*.png"):
    read_map(path)
    read_fixations(Path(sys.argv[1], path.parts[-3], "fixation", path.name))
print(can_fork())
"""
    ran = run(code, data[0].truth)
    assert ran.stdout == "True\n", ran.stderr


def test_a_pool_may_take_no_more_jobs_than_its_workers():
    started = []

    def start(*_):
        started.append(Future())
        return started[-1]

    pool = Pool(lambda *_: nullcontext(start), ahead=1)
    with working(None, 2, lambda _: None, pool) as workers:
        for _ in range(2):
            workers.submit(1)
        assert not workers._room.acquire(blocking=False)
        started[0].set_result(None)
        workers.submit(1)
        assert len(started) == 3
        assert not workers._room.acquire(blocking=False)
        for future in started[1:]:
            future.set_result(None)
