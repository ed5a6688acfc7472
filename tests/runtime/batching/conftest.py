import numpy as np
import pytest

from salema.runtime.backends.opening import open_session
from salema.runtime.batching.stream_batch import StreamBatch
from salema.runtime.stream import SaliencyStream


@pytest.fixture
def batch(exported):
    """Opens places of a SalEMA30 on ONNX Runtime."""
    made = []

    def make(places=3, max_wait_ms=100, **options):
        session = open_session(exported(**{"batch": None, **options}), "onnxruntime", "cpu")
        made.append(StreamBatch(SaliencyStream(session, places), max_wait_ms))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def alone(exported):
    def run(frames, elapsed=1, **options):
        session = open_session(exported(**{"batch": None, **options}), "onnxruntime", "cpu")
        with SaliencyStream(session) as stream:
            return np.stack([stream.step(frame, elapsed) for frame in frames])

    return run
