"""The peak's loops hold the instructions that they name, compute what they should, and are timed on every core."""

import re
import sys
import threading
import time
from dataclasses import replace

import pytest
from llvmlite import binding

from salema.benchmarks.machine import peaks
from salema.benchmarks.machine.peak_kernels import ARM, X86, Compiler
from salema.kernels.errors import BackendError
from salema.runtime.cpu import usable_cpus
from salema.runtime.errors import MissingDependencyError

MNEMONICS = {"FMA": "vfmadd[0-9]+ps"}


@pytest.fixture(scope="module")
def compiler():
    return Compiler()


def assembly(kernel):
    """The loop's instructions, for a CPU that has what the kernel needs."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    triple = "x86_64-linux-gnu" if kernel in X86 else "aarch64-linux-gnu"
    features = ",".join(f"+{name}" for name in kernel.needs)
    machine = binding.Target.from_triple(triple).create_target_machine(features=features, opt=3)
    text = machine.emit_assembly(binding.parse_assembly(kernel.code()))
    return text[text.index("LBB0_1:") :]


@pytest.mark.parametrize("kernel", [*X86, *ARM], ids=lambda kernel: f"{kernel.precision} {kernel.name}")
def test_each_turn_has_one_instruction_for_each_accumulator(kernel):
    assert kernel.accumulators >= 12  # latency x instructions per cycle: 6 x 2 of BF16
    mnemonic = MNEMONICS.get(kernel.mnemonic, kernel.mnemonic.lower())
    assert len(re.findall(rf"\b{mnemonic}\b", assembly(kernel))) == kernel.accumulators


def test_each_peak_loop_of_this_cpu_computes_its_result(compiler):
    kernels = compiler.kernels({"fp32", "bf16", "int16", "int8"})
    assert "fp32" in {kernel.precision for kernel in kernels}
    for kernel in kernels:
        compiler.compile(kernel)(1)


def test_another_sum_is_refused(compiler):
    kernel = compiler.kernels({"fp32"})[0]
    with pytest.raises(BackendError, match=f"{kernel.name}: its sums are wrong on this CPU; llvmlite "):
        compiler.compile(replace(kernel, products=2))


@pytest.mark.parametrize("unit", ["amx-int8", "sme"])
def test_where_a_matrix_unit_is_faster_there_is_no_peak(unit):
    compiler = Compiler()
    compiler.features |= {unit}
    assert {kernel.precision for kernel in compiler.kernels({"int8"})} == set()


def test_a_core_does_two_to_a_few_registers_of_multiplications_in_a_cycle(compiler):
    """Of FMA: 4 lanes at least, and 4 registers of 128 or 2 of 512 bits at most."""
    found = peaks.measure_peaks({"fp32", "int8"}, cores=1)
    assert found.cores == 1
    assert found.how.startswith("llvmlite ")
    assert 0.3 < found.clock_ghz["fp32"] < 8
    per_cycle = found.operations_per_s["fp32"] / found.clock_ghz["fp32"] / 1e9
    assert 6 < per_cycle < 70
    assert set(found.operations_per_s) == {kernel.precision for kernel in compiler.kernels({"fp32", "int8"})}
    assert found.operations_per_s.get("int8", 1e15) > 1.5 * found.operations_per_s["fp32"]
    assert found.instructions["fp32"] in {kernel.name for kernel in (*X86, *ARM)}


def test_cores_run_side_by_side_and_the_burst_with_the_greatest_sum_counts(monkeypatch):
    ran = []
    bursts = [
        ((9e6, 2.5), (3e6, 2.0), (1e6, 4.0)),
        ((1e6, 2.5), (4e6, 3.0), (9e6, 2.0)),
        ((1e6, 2.5), (5e6, 3.0), (1e6, 1.0)),
    ]
    cores, numbers = {}, {}

    def burst(run, clock, turns, barrier):
        ran.append(barrier.wait())
        core = cores.setdefault(threading.get_ident(), len(cores))
        number = numbers[core] = numbers.get(core, -1) + 1
        return bursts[core][number]

    monkeypatch.setattr(peaks, "_burst", burst)
    turns_per_s, ghz = peaks._fastest(lambda turns: time.sleep(0.001), lambda turns: 1, usable_cpus()[:1] * 3, 3)
    assert sorted(ran) == [0, 0, 0, 1, 1, 1, 2, 2, 2]  # each burst waited for all three
    assert (turns_per_s, ghz) == (12e6, 8 / 3)  # of the second burst; the best of each core would be 23e6


def test_without_llvmlite_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    with pytest.raises(MissingDependencyError, match=r"llvmlite can't be imported .* pip install 'salema\[bench\]'"):
        peaks.measure_peaks({"fp32"})
