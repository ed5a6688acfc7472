"""Joules that a machine's own meters count: RAPL, NVIDIA's driver, or the power monitor of a Jetson.

Sources: Linux, "Power Capping Framework" (`energy_uj` wraps at `max_energy_range_uj`); NVML,
`nvmlDeviceGetTotalEnergyConsumption`; Jetson Linux Developer Guide, "Power monitor" (INA3221 rails by `in*_label`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salema.kernels.errors import BackendError
from salema.kernels.gpus import pci_bus_id

if TYPE_CHECKING:
    from typing_extensions import Self

_SYS = Path("/sys")
# The whole module's input; an AGX Orin has none, but three that add up to it.
_RAILS = (("VDD_IN",), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))
_SAMPLE_S = 0.05


class EnergyMeter:
    """All meters of this machine, added up from the start of its `with` block.

    Attributes:
        sources: names of the meters; empty where there is none.
        is_barred: whether the CPU has a meter that this user may not read.
    """

    def __init__(self, gpu: int | None = None, sys: Path = _SYS) -> None:
        """Looks for meters below `sys`, and asks NVIDIA's driver about CUDA's GPU number `gpu`; None for no GPU."""
        self._counters: dict[str, Callable[[], float]] = {}
        self.is_barred = False
        for folder in sorted(sys.glob("class/powercap/intel-rapl:?")):
            self._add_package(folder)
        if gpu is not None:
            self._counters |= _nvml_counter(gpu)
        self._rails = _find_rails(sys)
        self._sampled_j, self._last_s = 0.0, time.perf_counter()
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self.sources = [*self._counters, *([f"INA3221 {' + '.join(self._rails)}"] if self._rails else [])]

    def _add_package(self, folder: Path) -> None:
        with suppress(OSError, ValueError):
            name = (folder / "name").read_text().strip()
            if not name.startswith("package"):  # psys counts the packages again
                return
            try:
                self._counters[f"RAPL {name}"] = _Rapl(folder)
            except PermissionError:  # usually only root may read it
                self.is_barred = True

    def joules(self) -> float | None:
        """Returns the energy used so far; None without a meter."""
        if not self.sources:
            return None
        self._take()  # for the time since the last sample
        return sum(read() for read in self._counters.values()) + self._sampled_j

    def __enter__(self) -> Self:
        self._last_s = time.perf_counter()
        if self._rails:
            self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._sampler.is_alive():
            self._sampler.join()

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            self._take()

    def _take(self) -> None:
        """Adds the energy since the last sample, taking the present power for that time."""
        with self._lock:
            now_s = time.perf_counter()
            self._sampled_j += sum(watts() for watts in self._rails.values()) * (now_s - self._last_s)
            self._last_s = now_s


class _Rapl:
    """One package's counter, which here does not wrap around."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self._range_uj = int((folder / "max_energy_range_uj").read_text())
        self._last_uj, self._sum_uj = int(self._file.read_text()), 0

    def __call__(self) -> float:
        now_uj = int(self._file.read_text())
        self._sum_uj += (now_uj - self._last_uj) % self._range_uj
        self._last_uj = now_uj
        return self._sum_uj / 1e6


def _nvml_counter(index: int) -> dict[str, Callable[[], float]]:
    try:
        import pynvml  # noqa: PLC0415 - optional
    except ImportError:
        return {}
    counters: dict[str, Callable[[], float]] = {}
    with suppress(pynvml.NVMLError, BackendError):
        pynvml.nvmlInit()
        handle: Any = pynvml.nvmlDeviceGetHandleByPciBusId(pci_bus_id(index).encode())
        start_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        counters[f"NVML GPU {index}"] = partial(_nvml_joules, pynvml, handle, start_mj)
    return counters


def _nvml_joules(pynvml: Any, handle: Any, start_mj: int) -> float:
    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - start_mj) / 1e3


def _find_rails(sys: Path) -> dict[str, Callable[[], float]]:
    """Returns functions that read the watts of a Jetson's input, or of the rails that add up to it; empty elsewhere."""
    labels = {label.read_text().strip(): label for label in sorted(sys.glob("class/hwmon/hwmon*/in*_label"))}
    for rails in _RAILS:
        if all(rail in labels for rail in rails):
            return {rail: partial(_watts, labels[rail]) for rail in rails}
    return {}


def _watts(label: Path) -> float:
    number = label.name.removeprefix("in").removesuffix("_label")
    volts, amperes = (int(label.with_name(f"{kind}{number}_input").read_text()) for kind in ("in", "curr"))
    return volts * amperes / 1e6  # mV and mA
