"""Meters, read from a folder tree like Linux's."""

import sys
import time
from types import ModuleType

import pytest

from salema.benchmarks.machine import energy
from salema.benchmarks.machine.energy import EnergyMeter
from salema.kernels import gpus


@pytest.fixture
def rapl(tmp_path):
    folder = tmp_path / "class/powercap/intel-rapl:0"
    folder.mkdir(parents=True)
    (folder / "name").write_text("package-0\n")
    (folder / "max_energy_range_uj").write_text("1000000\n")
    (folder / "energy_uj").write_text("900000\n")
    return folder


def test_a_counter_that_wraps_goes_on(tmp_path, rapl):
    with EnergyMeter(sys=tmp_path) as meter:
        assert meter.sources == ["RAPL package-0"]
        assert meter.joules() == 0
        (rapl / "energy_uj").write_text("950000\n")
        assert meter.joules() == pytest.approx(0.05)
        (rapl / "energy_uj").write_text("150000\n")
        assert meter.joules() == pytest.approx(0.25)


def test_the_platforms_meter_is_not_added_to_the_packages(tmp_path, rapl):
    other = rapl.with_name("intel-rapl:1")
    other.mkdir()
    for name, text in (("name", "psys"), ("max_energy_range_uj", "1000000"), ("energy_uj", "5")):
        (other / name).write_text(f"{text}\n")
    assert EnergyMeter(sys=tmp_path).sources == ["RAPL package-0"]


def test_without_a_meter_there_is_no_number(tmp_path):
    with EnergyMeter(sys=tmp_path) as meter:
        assert meter.sources == []
        assert meter.joules() is None


def test_a_counter_that_may_not_be_read_is_no_meter(tmp_path, rapl):
    (rapl / "energy_uj").unlink()
    assert EnergyMeter(sys=tmp_path).sources == []


def write_rails(folder, *rails):
    folder.mkdir(parents=True)
    for number, (label, millivolts, milliamperes) in enumerate(rails, 1):
        files = (("in{}_label", label), ("in{}_input", millivolts), ("curr{}_input", milliamperes))
        for name, text in files:
            (folder / name.format(number)).write_text(f"{text}\n")


def test_a_jetsons_input_rail_is_summed_over_time(tmp_path):
    write_rails(tmp_path / "class/hwmon/hwmon3", ("VDD_IN", 5000, 2000), ("VDD_CPU_GPU_CV", 5000, 1000))
    with EnergyMeter(sys=tmp_path) as meter:
        assert meter.sources == ["INA3221 VDD_IN"]
        start_s, before = time.perf_counter(), meter.joules()
        while (joules := meter.joules()) < 1:
            assert time.perf_counter() - start_s < 20
            time.sleep(0.01)
        assert joules - before <= 10 * (time.perf_counter() - start_s)  # 5 V at 2 A are 10 W


def test_an_agx_orins_rails_are_added_up(tmp_path):
    write_rails(
        tmp_path / "class/hwmon/hwmon1",
        ("VDD_GPU_SOC", 20_000, 200),
        ("VDD_CPU_CV", 20_000, 100),
        ("VIN_SYS_5V0", 5000, 800),
    )
    write_rails(tmp_path / "class/hwmon/hwmon2", ("VDDQ_VDD2_1V8AO", 5000, 90))
    with EnergyMeter(sys=tmp_path) as meter:
        assert meter.sources == ["INA3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"]
        first_s, before, start_s = time.perf_counter(), meter.joules(), time.perf_counter()
        time.sleep(0.02)  # shorter than the sampling
        end_s, joules, last_s = time.perf_counter(), meter.joules() - before, time.perf_counter()
        assert 10 * (end_s - start_s) <= joules <= 10 * (last_s - first_s)


SLOTS = ("0000:17:00.0", "0000:3B:00.0")


class Driver:
    """CUDA's driver where the second slot alone is visible."""

    def cuInit(self, flags):  # noqa: N802
        return 0

    def cuDeviceGet(self, device, index):  # noqa: N802
        return 0 if index == 0 else 101

    def cuDeviceGetPCIBusId(self, name, size, device):  # noqa: N802
        name.value = SLOTS[1].encode()
        return 0

    def cuGetErrorString(self, code, text):  # noqa: N802
        text._obj.value = b"invalid device ordinal"


@pytest.fixture
def nvml(monkeypatch):
    """NVML as its bindings show it: all GPUs by slot, each with a counter of its own in millijoules."""
    counters = dict.fromkeys(SLOTS, 1000)
    module = ModuleType("pynvml")
    module.NVMLError = type("NVMLError", (Exception,), {})
    module.nvmlInit = lambda: None
    module.nvmlDeviceGetHandleByIndex = lambda index: SLOTS[index]
    module.nvmlDeviceGetHandleByPciBusId = lambda name: name.decode()
    module.nvmlDeviceGetTotalEnergyConsumption = counters.__getitem__
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(gpus, "_library", Driver)
    return counters


def test_nvml_is_asked_for_cudas_gpu_not_for_its_own_of_that_number(tmp_path, nvml):
    with EnergyMeter(0, sys=tmp_path) as meter:
        assert meter.sources == ["NVML GPU 0"]
        nvml[SLOTS[0]] += 7000  # somebody else's work
        nvml[SLOTS[1]] += 2000
        assert meter.joules() == 2
    assert EnergyMeter(1, sys=tmp_path).sources == []


def test_a_meter_that_only_root_may_read_is_told(tmp_path, rapl, monkeypatch):
    def refuse(_):
        raise PermissionError

    assert not EnergyMeter(sys=tmp_path).is_barred
    monkeypatch.setattr(energy, "_Rapl", refuse)  # the tests may run as root
    meter = EnergyMeter(sys=tmp_path)
    assert (meter.sources, meter.is_barred) == ([], True)
