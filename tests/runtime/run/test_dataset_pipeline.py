"""A dataset's videos go through the same stages as others, and come out as the published code has them."""

import cv2
import numpy as np
import pytest
from host_device import HostDevice, QueuedLauncher, open_host

from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.gpu.device_session import DeviceSession
from salema.runtime.output.provenance import read_provenance
from salema.runtime.postprocess import to_grey
from salema.runtime.run.dataset import Here, VideoWork, is_finished, run_dataset
from salema.runtime.run.dataset_layouts import list_videos
from salema.runtime.stream import SaliencyStream

SIZES = [(48, 64)] * 3 + [(90, 121)] * 3 + [(48, 64)] * 2


@pytest.fixture
def videos(tmp_path):
    """One video whose images change in size."""
    (tmp_path / "src/v").mkdir(parents=True)
    for number, size in enumerate(SIZES, 1):
        cv2.imwrite(str(tmp_path / f"src/v/{number}.png"), moving_disc(number, *size)[-1])
    return list_videos("other", tmp_path / "src", tmp_path / "dst", "w")


def maps_of(videos):
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in videos[0].maps]


def test_the_memory_goes_on_where_images_change_in_size(videos, model):
    summary = run_dataset(videos, Here(lambda: load(model)))
    assert (summary.videos, summary.frames, summary.failed) == (1, len(SIZES), {})
    with load(model) as stream:
        expected = [to_grey(stream.step(cv2.imread(str(path)))) for path in videos[0].frames]
    np.testing.assert_array_equal(maps_of(videos), expected)


def test_a_device_that_draws_makes_the_same_maps(videos, model, monkeypatch):
    run_dataset(videos, Here(lambda: load(model, backend="onnxruntime")))
    expected = maps_of(videos)
    device, drawn = HostDevice(integrated=False), []
    session = DeviceSession(open_host(model, device), device, QueuedLauncher(device), "host")
    step = session.step_pictures
    monkeypatch.setattr(session, "step_pictures", lambda *args: drawn.append(1) or step(*args))
    for path in videos[0].maps:
        path.unlink()
    assert run_dataset(videos, Here(lambda: SaliencyStream(session))).failed == {}
    np.testing.assert_array_equal(maps_of(videos), expected)
    assert len(drawn) == len(SIZES)


def test_a_map_that_is_nan_ends_its_video_in_the_pipelines_sentence(videos, model, monkeypatch):
    infer, steps = SaliencyStream.infer, []

    def breaks(*args):
        steps.append(1)
        return infer(*args) * (np.float32(np.nan) if len(steps) == 4 else 1)

    run_dataset(videos, Here(lambda: load(model)))
    monkeypatch.setattr(SaliencyStream, "infer", breaks)
    summary = run_dataset(videos, Here(lambda: load(model)))
    assert summary.failed == {"v": "seeded:16: the model gave NaN or infinity for a frame"}
    made = read_provenance(videos[0].folder)
    assert (made.frames, made.frames_expected, made.why_incomplete) == (3, len(SIZES), summary.failed["v"])
    assert is_finished(videos[0])  # those of the run before are there, and so are not believed
    monkeypatch.undo()
    again = run_dataset(videos, Here(lambda: load(model)), VideoWork(resume=True))
    assert (again.videos, again.again) == (1, {"v": "it was not finished"})
