"""Failures of the server's own: the one who runs it is told once of each, and it is not ready meanwhile."""

import pytest
from serving import jpeg, result, serving
from websockets.exceptions import ConnectionClosed

from salema.runtime.errors import BackendError


def test_a_step_that_fails_is_told_and_the_server_is_not_ready_until_one_succeeds(model, disc):
    with serving(model) as one:
        session = one.service._places._stream.session
        step = session.step

        def fail(*_):
            raise BackendError("the GPU is lost")

        session.step = fail
        for _ in range(2):
            assert one.ask("/api/image", "POST", jpeg(disc[0])).status == 500
            with one.connect() as socket, pytest.raises(ConnectionClosed) as closed:
                socket.send(jpeg(disc[0]))
                socket.recv(10)
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "the GPU is lost")
        assert one.ask("/readyz").status == 503
        assert one.ask("/healthz").status == 200
        session.step = step
        assert one.ask("/api/image", "POST", b"no image").status == 422
        assert one.ask("/readyz").status == 503
        with one.connect() as socket:
            socket.send(jpeg(disc[0]))
            result(socket)
            assert one.ask("/readyz").status == 200
        assert one.ask("/api/image", "POST", b"no image").status == 422
        assert one.ask("/readyz").status == 200  # what a client does wrong is no failure of the server
    assert one.notes == ["a frame of a client failed: the GPU is lost"]


def test_a_fault_in_the_server_is_told(model):
    with serving(model) as one:

        def fail():
            raise RuntimeError("broken")

        one.service.metrics.text = fail
        assert [one.ask("/metrics").status for _ in range(2)] == [500, 500]
    assert one.notes == ["a request failed: RuntimeError (broken)"]
