"""For a pytest on the driver: kernels are the host builds, and no test leaves a fault."""

import gc

import pytest
from host_driver.calls import take_faults
from host_kernels import build

from salema.kernels import compile as compiling


def pytest_configure():
    # All else of loading a kernel stays: the driver loads the bytes as a GPU's code.
    compiling.compile_kernel = lambda variant, target: compiling.Compiled(build(variant).read_bytes(), "")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown():
    result = yield
    gc.collect()
    faults = take_faults()
    assert not faults, faults
    return result
