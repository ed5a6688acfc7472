"""What the driver tells the tests, in a process that runs on it."""

import ctypes
import os

_driver = ctypes.CDLL("libcuda.so.1") if "SALEMA_HOST_DRIVER" in os.environ else None


def take_faults():
    """What was wrong since the last call, a line each."""
    _driver.host_driver_take_faults.restype = ctypes.c_char_p
    return _driver.host_driver_take_faults().decode()


def left():
    """What nobody freed so far."""
    _driver.host_driver_left.restype = ctypes.c_char_p
    return _driver.host_driver_left().decode()


def add_fault(text):
    _driver.host_driver_fault(text.encode())


def kernels_run():
    _driver.host_driver_kernels_run.restype = ctypes.c_long
    return _driver.host_driver_kernels_run()


def set_integrated(integrated):
    """Whether the driver's GPUs say that they share the host's memory, as a Jetson's."""
    _driver.host_driver_set_integrated(ctypes.c_int(integrated))


def set_memory(nbytes):
    """How much memory each of the driver's GPUs has; page-locked memory counts too."""
    _driver.host_driver_set_memory(ctypes.c_size_t(nbytes))


def call_in_stream(stream, function):
    """Puts a function on a stream's work. The function must live as long as a graph may run it.

    Not by cuda-bindings: 13.0 frees its wrapper once the function has run, and a graph runs it again.
    """
    assert _driver.cuLaunchHostFunc(ctypes.c_void_p(stream), function, None) == 0


def bytes_on_device(address, nbytes):
    """The device's own memory, as its work sees it."""
    reached = _driver.host_driver_reaches(ctypes.c_void_p(address), ctypes.c_size_t(nbytes))
    assert reached, f"{nbytes} bytes at {address:#x} are not in one piece of the device's memory"
    return (ctypes.c_uint8 * nbytes).from_address(address)
