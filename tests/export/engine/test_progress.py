import os
import signal

import pytest

from salema.export.engine import builder as engine_builder
from salema.export.engine.progress import BuildProgress
from salema.runtime.errors import ModelError
from salema.runtime.gpu.engine_files import read_engine
from salema.runtime.gpu.trt_library import TENSORRT_RTX

pytestmark = pytest.mark.tensorrt


def test_a_build_reports_progress_and_ends_when_interrupted(folder, monkeypatch, build):
    seen = []

    class Watched(BuildProgress):
        def step(self, phase, step):
            seen.append((phase, step))
            return super().step(phase, step)

    monkeypatch.setattr(engine_builder, "BuildProgress", Watched)
    build(folder)
    assert len(seen) > 50

    class Interrupted(BuildProgress):
        def step(self, phase, step):
            os.kill(os.getpid(), number)
            return super().step(phase, step)

    monkeypatch.setattr(engine_builder, "BuildProgress", Interrupted)
    before = (folder / "model.rtx.engine").read_bytes()
    handler = signal.default_int_handler
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        before_test = signal.signal(number, handler)  # some shells have it ignored
        try:
            with pytest.raises(KeyboardInterrupt):
                build(folder)
            assert signal.getsignal(number) == handler
        finally:
            signal.signal(number, before_test)
    assert (folder / "model.rtx.engine").read_bytes() == before


def test_the_progress_bar_counts_outermost_phases():
    progress = BuildProgress()
    progress.start("Building", None, 3)
    progress.start("Inner", "Building", 50)
    assert all(progress.step("Inner", step) for step in range(50))
    assert progress.step("Building", 0)
    progress.start("Second", None, 1)
    assert progress.phases == ["Building", "Second"]
    progress.close()
    progress.close()


def test_a_file_that_changes_while_it_is_built_does_not_pass_as_the_new_one(folder, monkeypatch, build):
    old = (folder / "model.onnx").read_bytes()

    class Changes(BuildProgress):
        def step(self, phase, step):
            (folder / "model.onnx").write_bytes(old + b"\x72\x00")
            return super().step(phase, step)

    monkeypatch.setattr(engine_builder, "BuildProgress", Changes)
    path = build(folder).path
    with pytest.raises(ModelError, match=r"model\.onnx beside it is another by now"):
        read_engine(path, TENSORRT_RTX)
