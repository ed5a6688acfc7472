"""Records the registers of every kernel for every GPU.

`python -m salema.benchmarks.studies.kernel_registers FILE.json`
"""

from __future__ import annotations

from salema.benchmarks.studies.common import write_study
from salema.kernels.compile import compile_kernel
from salema.kernels.ops.ema import EMA_VARIANTS
from salema.kernels.ops.postprocess import VARIANTS as PICTURES
from salema.kernels.ops.preprocess import VARIANTS as PREPROCESS

TARGETS = ("sm75", "sm80", "sm86", "sm87", "sm89", "sm90", "sm100", "sm110", "sm120")
VARIANTS = (*EMA_VARIANTS, *PREPROCESS, *PICTURES)


def count_registers() -> dict[str, dict[str, int | None]]:
    """Compiles all variants with NVRTC; returns registers per thread by variant and target.

    Raises:
        RuntimeError: a variant spills.
    """
    registers: dict[str, dict[str, int | None]] = {}
    for variant in VARIANTS:
        row = registers.setdefault(" ".join((variant.name, *variant.arguments)), {})
        for target in TARGETS:
            compiled = compile_kernel(variant, target, "nvrtc")
            if compiled.spilled_bytes:
                raise RuntimeError(f"{variant} spills {compiled.spilled_bytes} bytes on {target}")
            row[target] = compiled.registers
    return registers


if __name__ == "__main__":
    write_study(count_registers(), timed=False)
