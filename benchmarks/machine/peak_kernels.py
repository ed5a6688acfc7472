"""Loops of one multiply-add instruction on registers, compiled by LLVM: nothing on this CPU multiplies faster.

Sources: LLVM's language reference (`llvm.fma`) and its `IntrinsicsX86.td` and `IntrinsicsAArch64.td`; Intel's
Intrinsics Guide and Arm's architecture reference, for what each instruction computes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salema.kernels.errors import BackendError, installed

_CHECKED_TURNS = 3
_CHAIN = 64  # dependent additions, each of one cycle, in a turn of the clock's loop


@dataclass(frozen=True)
class Kernel:
    """One instruction, and how much it does.

    `precision`, of what is multiplied, is `fp32`, `bf16`, `int16` or `int8`. `needs` are LLVM's names of the features
    that the CPU must have. `products` is how many one sum takes up in a turn; a matrix instruction multiplies two rows
    by two columns of as many.
    """

    precision: str
    mnemonic: str
    bits: int
    needs: frozenset[str]
    intrinsic: str
    products: int

    @property
    def name(self) -> str:
        """The instruction, for people."""
        return f"{self.mnemonic}, {self.bits} bits"

    @property
    def accumulators(self) -> int:
        """Independent ones: at least latency x instructions per cycle. AVX2 has 16 registers, the others have 32."""
        return 12 if self.bits == 256 else 24  # noqa: PLR2004

    @property
    def lanes(self) -> int:
        """Sums in a register."""
        return self.bits // 32

    @property
    def operations(self) -> int:
        """Operations of one turn of the loop, two per multiplication."""
        return 2 * self.accumulators * self.products * self.lanes

    @property
    def sum_type(self) -> type[Any]:
        """NumPy's type of the sums."""
        return np.int32 if self.precision.startswith("int") else np.float32

    def code(self) -> str:
        """Returns the loop in LLVM's language: `kernel(turns, x, y, sums)`, where the sums are read and written."""
        sums = f"<{self.lanes} x {'i32' if self.sum_type is np.int32 else 'float'}>"
        packed = {"bf16": f"<{self.bits // 16} x bfloat>"}
        if self in ARM:
            packed["int8"] = f"<{self.bits // 8} x i8>"
        operand = packed.get(self.precision, sums)
        given = f"{sums} %s{{i}}, {operand} %x, {operand} %y"
        if self.intrinsic.startswith("llvm.fma"):
            given = f"{operand} %x, {operand} %y, {sums} %s{{i}}"
        all_sums = range(self.accumulators)
        lines = [
            f"declare {sums} @{self.intrinsic}({', '.join(part.partition('%')[0] for part in given.split(', '))})",
            "define void @kernel(i64 %turns, ptr %x_at, ptr %y_at, ptr %sums_at) {",
            *("entry:", *(f"%{name} = load {operand}, ptr %{name}_at, align 1" for name in "xy")),
            *(f"%p{i} = getelementptr {sums}, ptr %sums_at, i64 {i}" for i in all_sums),
            *(f"%a{i} = load {sums}, ptr %p{i}, align 1" for i in all_sums),
            *("br label %loop", "loop:", "%turn = phi i64 [0, %entry], [%next, %loop]"),
            *(f"%s{i} = phi {sums} [%a{i}, %entry], [%r{i}, %loop]" for i in all_sums),
            *(f"%r{i} = call {sums} @{self.intrinsic}({given.format(i=i)})" for i in all_sums),
            *("%next = add i64 %turn, 1", "%done = icmp eq i64 %next, %turns"),
            *("br i1 %done, label %end, label %loop", "end:"),
            *(f"store {sums} %r{i}, ptr %p{i}, align 1" for i in all_sums),
            *("ret void", "}"),
        ]
        return "\n".join(lines)

    def operands(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the values of `x` and `y`: small, other ones from lane to lane, and negative where they can be."""
        count = self.lanes * self.products // (1 + self.is_matrix)
        x, y = np.arange(count) % 7 - 3, np.arange(count) % 5 - 2
        return np.arange(count) * 37 % 251 if self.mnemonic == "VPDPBUSD" else x, y  # it takes x as unsigned

    def packed(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Returns `x` and `y` as the instruction reads them."""
        x, y = self.operands()
        if self.precision == "bf16":  # the upper half of a float32
            halves = [(values.astype("<f4").view("<u4") >> 16).astype("<u2") for values in (x, y)]
            return halves[0], halves[1]
        kind = {"fp32": np.float32, "int16": np.int16, "int8": np.int8}[self.precision]
        return x.astype(np.uint8).view(np.int8) if kind is np.int8 else x.astype(kind), y.astype(kind)

    @property
    def is_matrix(self) -> bool:
        """Whether it multiplies rows by columns, in place of lane by lane."""
        return self.mnemonic.endswith("MMLA")

    def expected(self, sums: NDArray[Any], turns: int) -> NDArray[Any]:
        """Returns what the sums `[accumulators, lanes]` are after some turns."""
        x, y = (values.reshape(-1, self.products) for values in self.operands())
        each = (x @ y.T).ravel() if self.is_matrix else (x * y).sum(1)
        after: NDArray[Any] = (sums + turns * each).astype(self.sum_type)
        return after


def _kernels(rows: tuple[tuple[str, str, int, str, str, int], ...]) -> tuple[Kernel, ...]:
    return tuple(Kernel(*row[:3], frozenset(row[3].split()), *row[4:]) for row in rows)


# Where a CPU has several for one precision, the fastest counts. FP16 has none: no backend here computes in it on a CPU.
X86 = _kernels(
    (
        ("fp32", "FMA", 512, "avx512f", "llvm.fma.v16f32", 1),
        ("fp32", "FMA", 256, "fma avx2", "llvm.fma.v8f32", 1),
        ("bf16", "VDPBF16PS", 512, "avx512bf16", "llvm.x86.avx512bf16.dpbf16ps.512", 2),
        ("bf16", "VDPBF16PS", 256, "avx512bf16 avx512vl", "llvm.x86.avx512bf16.dpbf16ps.256", 2),
        ("int16", "VPDPWSSD", 512, "avx512vnni", "llvm.x86.avx512.vpdpwssd.512", 2),
        ("int16", "VPDPWSSD", 256, "avxvnni", "llvm.x86.avx512.vpdpwssd.256", 2),
        ("int8", "VPDPBUSD", 512, "avx512vnni", "llvm.x86.avx512.vpdpbusd.512", 4),
        ("int8", "VPDPBUSD", 256, "avxvnni", "llvm.x86.avx512.vpdpbusd.256", 4),
    )
)
ARM = _kernels(
    (
        ("fp32", "FMLA", 128, "neon", "llvm.fma.v4f32", 1),
        ("bf16", "BFDOT", 128, "neon bf16", "llvm.aarch64.neon.bfdot.v4f32.v8bf16", 2),
        ("bf16", "BFMMLA", 128, "neon bf16", "llvm.aarch64.neon.bfmmla", 4),
        ("int8", "SDOT", 128, "neon dotprod", "llvm.aarch64.neon.sdot.v4i32.v16i8", 4),
        ("int8", "SMMLA", 128, "neon i8mm", "llvm.aarch64.neon.smmla.v4i32.v16i8", 8),
    )
)
# Units that are faster, and not here: with one of them the instructions above are no peak.
_FASTER = {"fp32": {"sme"}, "bf16": {"sme", "amx-bf16"}, "int16": set(), "int8": {"sme", "amx-int8"}}


class Compiler:
    """LLVM for this CPU. What it has compiled lives as long as it does."""

    def __init__(self) -> None:
        """Starts LLVM.

        Raises:
            MissingDependencyError: llvmlite is not installed.
        """
        with installed("pip install 'salema[bench]'", "llvmlite"):
            import llvmlite  # noqa: PLC0415 - optional
            from llvmlite import binding  # noqa: PLC0415
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        self._llvm: Any = binding
        self._engines: list[Any] = []
        self.how = f"llvmlite {llvmlite.__version__}, LLVM {'.'.join(map(str, binding.llvm_version_info))}"
        self.features = frozenset(name for name, has in binding.get_host_cpu_features().items() if has)

    def kernels(self, precisions: set[str]) -> list[Kernel]:
        """Returns the kernels of some precisions that this CPU runs, and that nothing on it beats."""
        is_arm = self._llvm.get_process_triple().startswith(("aarch64", "arm64"))
        usable = [kernel for kernel in (ARM if is_arm else X86) if kernel.needs <= self.features]
        wanted = [kernel for kernel in usable if kernel.precision in precisions]
        return [kernel for kernel in wanted if not _FASTER[kernel.precision] & self.features]

    def compile(self, kernel: Kernel) -> Callable[[int], None]:
        """Returns a kernel as a function of a number of turns, after a check on a few that it computes what it says.

        Other threads of Python run meanwhile.

        Raises:
            BackendError: its sums are wrong.
        """
        call = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * 3)(self._address(kernel.code()))
        x, y = kernel.packed()
        start = np.arange(kernel.accumulators * kernel.lanes).reshape(-1, kernel.lanes).astype(kernel.sum_type)
        sums = start.copy()
        call(_CHECKED_TURNS, x.ctypes.data, y.ctypes.data, sums.ctypes.data)
        if not np.array_equal(sums, kernel.expected(start, _CHECKED_TURNS)):
            raise BackendError(f"{kernel.name}: its sums are wrong on this CPU; {self.how} compiled it")

        def run(turns: int) -> None:
            own = start.copy()  # of each thread
            call(turns, x.ctypes.data, y.ctypes.data, own.ctypes.data)

        return run

    def compile_clock(self) -> Callable[[int], int]:
        """Returns a function that runs for a number of turns, and returns the cycles that they take."""
        steps = [f"%t{i + 1} = {'xor' if i % 2 else 'add'} i64 %t{i}, %{'ba'[i % 2]}" for i in range(_CHAIN)]
        code = [
            *("define i64 @kernel(i64 %turns, i64 %a, i64 %b) {", "entry:", "br label %loop", "loop:"),
            *("%turn = phi i64 [0, %entry], [%next, %loop]", f"%t0 = phi i64 [%a, %entry], [%t{_CHAIN}, %loop]"),
            *(*steps, "%next = add i64 %turn, 1", "%done = icmp eq i64 %next, %turns"),
            *("br i1 %done, label %end, label %loop", "end:", f"ret i64 %t{_CHAIN}", "}"),
        ]
        call = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(self._address("\n".join(code)))

        def run(turns: int) -> int:
            call(turns, 12345, 678)
            return turns * _CHAIN

        return run

    def _address(self, code: str) -> int:
        """Compiles a module, and returns where its function `kernel` is."""
        module = self._llvm.parse_assembly(code)
        module.verify()
        features = self._llvm.get_host_cpu_features().flatten()
        target = self._llvm.Target.from_default_triple()
        machine = target.create_target_machine(cpu=self._llvm.get_host_cpu_name(), features=features, opt=3)
        engine = self._llvm.create_mcjit_compiler(module, machine)
        engine.finalize_object()
        self._engines.append(engine)
        return int(engine.get_function_address("kernel"))
