import pytest
from rtsp import RtspServer

from salema.export.weights.seeded import moving_disc


@pytest.fixture
def server():
    made = RtspServer(moving_disc(25, 64, 96))
    yield made
    made.close()
