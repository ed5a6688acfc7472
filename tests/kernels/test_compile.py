"""Every kernel for every GPU that we serve, by NVRTC and by nvcc: no warning, no spill."""

import re
import shutil
from pathlib import Path

import pytest

from salema.kernels import compile as kernel_compile
from salema.kernels.compile import (
    SOURCES,
    Variant,
    compile_kernel,
    compile_with_nvcc,
    compile_with_nvrtc,
    load_kernel,
)
from salema.kernels.errors import BackendError, MissingDependencyError
from salema.kernels.ops import postprocess as postprocess_op
from salema.kernels.ops import preprocess as preprocess_op
from salema.kernels.ops.ema import EMA_VARIANTS

TARGETS = ("sm75", "sm80", "sm86", "sm87", "sm89", "sm90", "sm100", "sm110", "sm120")
MOST_REGISTERS = 64  # of 65536: with 256 threads a block, four blocks on a multiprocessor
ALL = (*EMA_VARIANTS, *preprocess_op.VARIANTS, *postprocess_op.VARIANTS)
KERNELS = {name: [variant for variant in ALL if variant.name == name] for name in {variant.name for variant in ALL}}
ONE = EMA_VARIANTS[0]


def test_every_source_is_among_the_kernels():
    assert set(KERNELS) == {path.stem for path in SOURCES.glob("*.cu")}
    assert len(EMA_VARIANTS) == len({variant.arguments for variant in EMA_VARIANTS}) == 10


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_nvrtc_compiles_every_variant_without_a_warning_or_a_spill(kernel, target):
    for variant in KERNELS[kernel]:
        compiled = compile_with_nvrtc(variant, target)
        assert compiled.cubin[:4] == b"\x7fELF"
        assert "warning" not in compiled.log
        assert spilled_bytes(compiled) == 0, variant
        assert 0 < registers(compiled) <= MOST_REGISTERS, (variant, registers(compiled))


@pytest.mark.parametrize("target", ["sm75", "sm90", "sm120"])  # each takes a process of 0.3 s
@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_nvcc_compiles_it_too(kernel, target):
    variant = KERNELS[kernel][-1]
    compiled = with_nvcc(variant, target)
    assert compiled.cubin[:4] == b"\x7fELF"
    assert "warning" not in compiled.log
    assert spilled_bytes(compiled) == 0
    assert registers(compiled) <= MOST_REGISTERS


def registers(compiled):
    return int(re.search(r"Used (\d+) registers", compiled.log)[1])


def spilled_bytes(compiled):
    return sum(map(int, re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", compiled.log).groups()))


def with_nvcc(variant, target):
    return compile_with_nvcc(kernel_compile._find_nvcc(), variant, target)


def broken(tmp_path, monkeypatch, text):
    shutil.copytree(SOURCES, tmp_path / "csrc")
    (tmp_path / "csrc/broken.cu").write_text('#include "common.cuh"\n' + text)
    monkeypatch.setattr(kernel_compile, "SOURCES", tmp_path / "csrc")


@pytest.mark.parametrize("compile_with", [compile_with_nvrtc, with_nvcc])
def test_a_source_that_is_wrong_is_refused_with_the_compilers_words(tmp_path, monkeypatch, compile_with):
    broken(tmp_path, monkeypatch, 'extern "C" __global__ void broken(float* x) { *x = nonsense; }\n')
    with pytest.raises(BackendError, match=r'the kernel broken does not compile for sm89: .*"nonsense" is undefined'):
        compile_with(Variant("broken"), "sm89")


def test_a_program_that_nvrtc_refuses_is_freed_too(tmp_path, monkeypatch):
    nvrtc = kernel_compile._import_nvrtc()
    programs = {"made": [], "freed": []}
    create, destroy = nvrtc.nvrtcCreateProgram, nvrtc.nvrtcDestroyProgram

    def created(*arguments):
        done = create(*arguments)
        programs["made"].append(int(done[1]))
        return done

    def destroyed(program):
        programs["freed"].append(int(program))  # before it, as it becomes 0
        return destroy(program)

    monkeypatch.setattr(nvrtc, "nvrtcCreateProgram", created)
    monkeypatch.setattr(nvrtc, "nvrtcDestroyProgram", destroyed)
    broken(tmp_path, monkeypatch, "nonsense\n")
    with pytest.raises(BackendError):
        compile_with_nvrtc(Variant("broken"), "sm89")
    compile_with_nvrtc(ONE, "sm89")
    assert len(programs["made"]) == 2
    assert programs["freed"] == programs["made"]


def test_a_spill_is_seen(tmp_path, monkeypatch):
    body = "float kept[64]; for (int i = 0; i < 64; ++i) kept[i] = x[i * n]; "
    body += (
        "for (int i = 0; i < n; ++i) kept[i % 64] += kept[(i * 7) % 64]; for (int i = 0; i < 64; ++i) x[i] = kept[i];"
    )
    broken(
        tmp_path,
        monkeypatch,
        f'extern "C" __global__ __launch_bounds__(1024, 2) void broken(float* x, int n) {{ {body} }}\n',
    )
    compiled = compile_with_nvrtc(Variant("broken"), "sm89")
    assert registers(compiled)
    assert "stack frame" in compiled.log


def test_an_unknown_gpu():
    with pytest.raises(
        MissingDependencyError,
        match=r"^NVRTC \d+\.\d+ compiles for sm\d+ to sm\d+, and not for sm42; install an older version",
    ):
        compile_with_nvrtc(ONE, "sm42")


def missing():
    raise MissingDependencyError("NVRTC can't be loaded")


def test_without_nvrtc_nvcc_is_taken(monkeypatch):
    monkeypatch.setattr(kernel_compile, "_import_nvrtc", missing)
    assert registers(compile_kernel(ONE, "sm89"))
    monkeypatch.setattr(kernel_compile, "_find_nvcc", lambda: None)
    with pytest.raises(MissingDependencyError, match="NVRTC can't be loaded"):
        compile_kernel(ONE, "sm89")


def test_the_cache_is_read_and_known_by_all_that_matters(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = load_kernel(ONE, "sm89", cache)
    [path] = cache.iterdir()
    kept = b"\x7fELF kept"
    path.write_bytes(kept)
    assert load_kernel(ONE, "sm89", cache) == kept
    assert load_kernel(EMA_VARIANTS[1], "sm89", cache) != kept
    assert load_kernel(ONE, "sm86", cache) != kept
    shutil.copytree(SOURCES, tmp_path / "csrc")
    (tmp_path / "csrc/common.cuh").write_text((SOURCES / "common.cuh").read_text() + "// changed\n")
    monkeypatch.setattr(kernel_compile, "SOURCES", tmp_path / "csrc")
    assert load_kernel(ONE, "sm89", cache) == first  # compiled anew: only a comment has changed
    assert len(list(cache.iterdir())) == 4


def nvcc_that(tmp_path, monkeypatch, script):
    """A compiler that is the only one here."""
    path = tmp_path / "bin/nvcc"
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)
    monkeypatch.setattr(kernel_compile, "_import_nvrtc", missing)
    monkeypatch.setattr(kernel_compile, "_find_nvcc", lambda: str(path))


NVCC = """#!/bin/sh
if [ "$1" = --version ]; then echo "release {version}"; exit; fi
while [ "$1" != -o ]; do shift; done
printf '\\177ELF of {version}' > "$2"
"""


def test_nvcc_is_taken_where_nvrtc_is_of_a_version_that_does_not_know_the_gpu(tmp_path, monkeypatch):
    read = kernel_compile._import_nvrtc
    nvcc_that(tmp_path, monkeypatch, NVCC.format(version="99.0"))
    monkeypatch.setattr(kernel_compile, "_import_nvrtc", read)
    assert compile_kernel(ONE, "sm999").cubin == b"\x7fELF of 99.0"
    assert load_kernel(ONE, "sm999", tmp_path / "cache") == b"\x7fELF of 99.0"
    assert compile_kernel(ONE, "sm89").cubin != b"\x7fELF of 99.0"
    monkeypatch.setattr(kernel_compile, "_find_nvcc", lambda: None)
    with pytest.raises(
        MissingDependencyError, match=r"and not for sm999; install a newer one with: pip install -U nvidia-cuda-nvrtc"
    ):
        compile_kernel(ONE, "sm999")


def with_driver(monkeypatch, version):
    monkeypatch.setattr(kernel_compile, "driver_cuda_version", lambda: version)


def test_nvrtc_of_a_newer_major_version_than_the_drivers_is_passed_over(tmp_path, monkeypatch):
    """JetPack 6: its driver, of CUDA 12, loads no code that CUDA 13 compiled."""
    _, major, minor = kernel_compile._import_nvrtc().nvrtcVersion()
    with_driver(monkeypatch, f"{major}.0")  # of the same major version an older one does
    compile_with_nvrtc(ONE, "sm89")
    with_driver(monkeypatch, "12.6")
    with pytest.raises(
        MissingDependencyError,
        match=rf"^NVRTC {major}\.{minor} makes code that this driver, which is of CUDA 12, does not load; install"
        " one of CUDA 12 with: pip uninstall -y nvidia-cuda-nvrtc && pip install nvidia-cuda-nvrtc-cu12$",
    ):
        compile_with_nvrtc(ONE, "sm89")
    read = kernel_compile._import_nvrtc
    nvcc_that(tmp_path, monkeypatch, NVCC.format(version="12.6"))
    monkeypatch.setattr(kernel_compile, "_import_nvrtc", read)
    assert load_kernel(ONE, "sm89", tmp_path / "cache") == b"\x7fELF of 12.6"
    nvcc_that(tmp_path, monkeypatch, NVCC.format(version="13.0"))
    with pytest.raises(
        MissingDependencyError, match=r"bin/nvcc 13\.0 makes code .*: pip install nvidia-cuda-nvrtc-cu12"
    ):
        compile_kernel(ONE, "sm89")


@pytest.mark.parametrize(
    ("driver", "wheel"),
    [("12.6", "nvidia-cuda-nvrtc-cu12"), ("13.0", r"'nvidia-cuda-nvrtc==13\.\*'"), (None, "nvidia-cuda-nvrtc")],
)
def test_the_nvrtc_to_install_is_of_the_drivers_major_version(monkeypatch, driver, wheel):
    if driver:
        with_driver(monkeypatch, driver)
    monkeypatch.setattr("cuda.bindings.nvrtc.nvrtcVersion", lambda: (_ for _ in ()).throw(RuntimeError("no libnvrtc")))
    with pytest.raises(
        MissingDependencyError,
        match=rf"NVRTC can't be loaded \(no libnvrtc\); install it with: pip install 'salema\[cuda\]' {wheel}$",
    ):
        compile_with_nvrtc(ONE, "sm89")


def test_another_nvcc_in_the_same_place_is_another_compiler(tmp_path, monkeypatch):
    nvcc_that(tmp_path, monkeypatch, NVCC.format(version="12.6"))
    assert load_kernel(ONE, "sm89", tmp_path / "cache") == b"\x7fELF of 12.6"
    nvcc_that(tmp_path, monkeypatch, NVCC.format(version="13.0"))
    assert load_kernel(ONE, "sm89", tmp_path / "cache") == b"\x7fELF of 13.0"


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (
            "#!/bin/sh\nexec sleep 60\n",
            r"bin/nvcc has not ended in 0\.1 s; try again with less else running, or",
        ),
        ("#!/nowhere\n", r"bin/nvcc: can't be run \(No such file or directory\); reinstall the CUDA toolkit"),
    ],
)
def test_a_compiler_that_hangs_or_does_not_start(tmp_path, monkeypatch, script, sentence):
    monkeypatch.setattr(kernel_compile, "_COMPILE_S", 0.1)
    nvcc_that(tmp_path, monkeypatch, script)
    for ask in (compile_kernel, load_kernel):
        with pytest.raises(BackendError, match=sentence):
            ask(ONE, "sm89")


@pytest.mark.parametrize("left", [b"", bytes(64)])
def test_a_broken_file_in_the_cache_is_compiled_anew(tmp_path, left):
    first = load_kernel(ONE, "sm89", tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(left)
    assert load_kernel(ONE, "sm89", tmp_path) == path.read_bytes() == first


def test_a_cache_on_a_full_disk_is_left_clean(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert load_kernel(ONE, "sm89", tmp_path)[:4] == b"\x7fELF"
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert load_kernel(ONE, "sm89", tmp_path / "file/cache")[:4] == b"\x7fELF"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    load_kernel(ONE, "sm89")
    assert len(list((tmp_path / "home/salema/kernels").iterdir())) == 1
