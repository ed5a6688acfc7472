"""For a pytest on the driver: kernels are the host builds, and no test leaves a fault."""

import gc

import pytest
from host_driver.calls import take_faults
from host_kernels import build

from salema.kernels import compile as compiling


def pytest_configure():
    # All else of loading a kernel stays: the driver loads the bytes as a GPU's code.
    compiling.compile_kernel = lambda variant, target: compiling.Compiled(build(variant).read_bytes(), "")


# Tests that do wrong on purpose, and what the driver says to it.
EXPECTED = {
    "test_a_device_may_be_closed_inside_its_block": "cuMemAlloc_v2: no context is current in this thread\n",
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    result = yield
    gc.collect()
    faults = take_faults()
    assert faults == EXPECTED.get(item.name, ""), faults
    return result
