"""The PyCUDA device layer on a real GPU."""

import gc
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from salema.kernels.device.cuda import CudaDevice
from salema.kernels.errors import BackendError

pytestmark = pytest.mark.gpu
BYTES = 1 << 16
CUDA_EMPTY = pytest.raises(BackendError, match="running on the GPU: .*context")


@pytest.fixture
def device():
    device = CudaDevice()
    yield device
    device.close()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def random_bytes(rng):
    return rng.integers(0, 256, BYTES, dtype=np.uint8)


def test_bytes_go_up_across_and_down(device, rng):
    data = random_bytes(rng)
    with device.active():
        first, second = device.allocate(BYTES), device.allocate(BYTES)
        source, _ = device.allocate_host(BYTES, mapped=False)
        target, address = device.allocate_host(BYTES, mapped=False)
        assert address is None
        source[:], target[:] = data, 0
        device.upload(first.address, source)
        device.copy(second.address, first.address, BYTES)
        device.download(target, second.address)
        device.synchronize()
        np.testing.assert_array_equal(target, data)
        assert first.address % 256 == 0
        first.free()
        second.free()
        del source, target


def test_the_device_sees_mapped_memory(device, rng):
    data = random_bytes(rng)
    with device.active():
        source, source_address = device.allocate_host(BYTES, mapped=True)
        target, target_address = device.allocate_host(BYTES, mapped=True)
        source[:], target[:] = data, 0
        device.copy(target_address, source_address, BYTES)
        device.synchronize()
        np.testing.assert_array_equal(target, data)
        del source, target


def test_recording_does_nothing_and_a_replay_takes_the_bytes_of_its_time(device, rng):
    first, second = random_bytes(rng), random_bytes(rng)
    with device.active():
        buffer = device.allocate(BYTES)
        source, _ = device.allocate_host(BYTES, mapped=False)
        target, _ = device.allocate_host(BYTES, mapped=False)
        source[:], target[:] = first, 0

        def work():
            device.upload(buffer.address, source)
            device.download(target, buffer.address)

        graph = device.capture(work)
        device.synchronize()
        assert not target.any()
        for data in (first, second):
            source[:] = data
            device.launch(graph)
            device.synchronize()
            np.testing.assert_array_equal(target, data)
        del graph
        buffer.free()


def test_a_recording_that_fails_leaves_the_stream_usable(device):
    def waits():
        device.synchronize()

    def breaks():
        raise ZeroDivisionError

    with device.active():
        buffer = device.allocate(BYTES)
        with pytest.raises(BackendError):
            device.capture(waits)
        with pytest.raises(ZeroDivisionError):
            device.capture(breaks)
        device.copy(buffer.address, buffer.address + 256, 256)
        device.synchronize()
        buffer.free()


def test_garbage_is_not_freed_while_recording(device):
    with device.active():
        buffer = device.allocate(BYTES)
        garbage = [device.allocate(64)]
        garbage.append(garbage)
        del garbage  # only the collector finds it

        def work():
            assert not gc.isenabled()
            _ = [[] for _ in range(5000)]  # as many new objects as make Python collect
            device.copy(buffer.address, buffer.address + 256, 256)

        graph = device.capture(work)
        assert gc.isenabled()
        gc.collect()
        device.launch(graph)
        device.synchronize()
        del graph
        buffer.free()


def test_other_threads_may_use_the_device(device, rng):
    data, found = random_bytes(rng), []

    def work():
        with device.active():
            buffer = device.allocate(BYTES)
            host, _ = device.allocate_host(BYTES, mapped=False)
            host[:] = data
            device.upload(buffer.address, host)
            device.synchronize()
            host[:] = 0
            device.download(host, buffer.address)
            device.synchronize()
            found.append(host.copy())
            buffer.free()
            del host

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found, [data])


def test_events_measure_time(device):
    with device.active():
        buffer = device.allocate(1 << 28)
        half = 1 << 27
        device.copy(buffer.address, buffer.address + half, half)  # a GPU's first work also raises its clocks
        once = device.elapsed_ms(lambda: device.copy(buffer.address, buffer.address + half, half))
        ten = device.elapsed_ms(
            lambda: [device.copy(buffer.address, buffer.address + half, half) for _ in range(10)] and None
        )
        assert 0 < once < ten
        buffer.free()


def test_too_much_memory_is_told_in_a_sentence(device):
    with pytest.raises(BackendError, match="there is too little free memory on the GPU"), device.active():
        device.allocate(1 << 50)


def test_a_gpu_that_is_not_there():
    with pytest.raises(BackendError, match="--device cuda:99: there is no GPU of that number"):
        CudaDevice(99)


def test_a_closed_device_says_so(device):
    device.close()
    device.close()
    with pytest.raises(BackendError, match="the GPU was closed"), device.active():
        pass


def test_a_device_may_be_closed_inside_its_block(device):
    other = CudaDevice()
    with device.active(), other.active():
        with other.active():
            other.close()
        device.synchronize()  # the block around it goes on
    with device.active():
        device.synchronize()
    with CUDA_EMPTY, device.active():
        device.close()
        device.allocate(1)
    assert CudaDevice().closed is False


def test_a_device_may_be_closed_while_another_thread_is_in_its_block(device):
    entered, closed, left = threading.Event(), threading.Event(), []

    def work():
        with device.active():
            entered.set()
            closed.wait(10)
        left.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(10)
    device.close()
    closed.set()
    thread.join()
    assert left


def test_a_graph_that_is_dropped_outside_of_any_block_is_freed_with_the_context_current(device):
    with device.active():
        buffer = device.allocate(BYTES)
        graph = device.capture(lambda: device.copy(buffer.address, buffer.address + 256, 256))
    driver, contexts = graph._driver, []

    def destroy(handle):
        contexts.append(driver.cuCtxGetCurrent()[1])
        return driver.cuGraphExecDestroy(handle)

    graph._driver = SimpleNamespace(cuGraphExecDestroy=destroy)
    del graph
    assert [bool(int(context)) for context in contexts] == [True]
    with device.active():
        buffer.free()


def test_pytorch_keeps_its_context():
    import torch

    if not torch.cuda.is_available():
        pytest.skip(f"this PyTorch {torch.__version__} has no CUDA here")
    before = torch.arange(10, device="cuda")
    CudaDevice().close()
    assert (before + torch.ones(10, device="cuda")).sum().item() == 55
