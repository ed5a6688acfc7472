import numpy as np
import pytest
from synthetic import write_dataset

from salema.benchmarks.metrics.protocols import METRICS, PROTOCOLS, score_frame
from salema.export.weights.architecture import Architecture
from salema.export.weights.checkpoints import load_checkpoint
from salema.training.data.videos import Videos
from salema.training.network import ClipNetwork
from salema.training.validation import run_video, validate

SIZE_HW = (32, 32)


@pytest.fixture(scope="module")
def gaze(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gaze")
    write_dataset(folder, "other", videos=2, frames=5, size_hw=SIZE_HW)
    return Videos("other", folder, None, None, None, pytest.fail)


def test_all_frames_are_run_and_some_are_scored(gaze):
    network = ClipNetwork(Architecture("salema", (30,)), load_checkpoint("seeded:16").weights, None, 0.3, 0.0)
    maps = list(run_video(network, gaze, SIZE_HW, 1))
    rng = np.random.default_rng(0)
    each = [score_frame(grey, seen.density, seen.fixated, None, PROTOCOLS["exact"], rng) for seen, grey in maps]
    for every, chosen in ((1, each), (2, each[::2]), (9, each[:1])):
        known = [list(METRICS).index(name) for name in ("nss", "cc", "auc_judd")]
        (scores,) = validate(network, gaze, SIZE_HW, [1], every).values()
        assert scores[known] == pytest.approx(np.mean(chosen, 0)[known])
