"""Maps of clips at two precisions, compared."""

import numpy as np
import pytest

from salema.runtime import load
from salema.runtime.metrics import cc
from salema.training.shipping import clips
from salema.training.shipping.clips import clips_table, compare_clips, run_clips
from salema.training.shipping.run_speed import _read

SIZE_HW = (12, 16)


def noise(seed, frames=4):
    return np.random.default_rng(seed).random((frames, *SIZE_HW), dtype=np.float32)


def test_each_clip_begins_anew_and_keeps_its_memory(exported, small_clip, monkeypatch):
    monkeypatch.setattr(clips, "FRAMES", 3)
    folder = exported(imgsz_hw=(64, 96))
    first, again = run_clips(folder, "onnxruntime", [small_clip, small_clip])
    assert np.array_equal(first, again)
    with load(folder, backend="onnxruntime") as stream:
        expected = np.stack([stream.step(image) for image in _read(small_clip, 3)])
        stream.reset()
        alone = stream.step(next(iter(_read(small_clip, 1))))
    assert first.shape == (3, 64, 96)
    assert np.abs(first - expected).max() < 2e-2  # OpenCV's decoder and ours round colours differently
    assert np.abs(alone - expected[0]).max() == 0


def test_the_same_maps_are_alike_in_all():
    found = compare_clips([noise(0), noise(1, 7)], [noise(0), noise(1, 7)])
    for name in ("cc", "sim"):
        assert list(found[name].values()) == pytest.approx([1, 1, 1, 1])
    assert set(found["difference"].values()) == {0.0}


def test_means_are_over_frames_and_draws_of_blocks(monkeypatch):
    monkeypatch.setattr(clips, "BLOCK", 2)
    own, wanted = [noise(0), noise(1, 3)], [noise(0), noise(2, 3)]
    wanted[1][1] *= 0.5
    each = [cc(*pair) for clip in zip(own, wanted, strict=True) for pair in zip(*clip, strict=True)]
    found = compare_clips(own, wanted)
    assert found["cc"]["mean"] == pytest.approx(np.mean(each))
    assert found["cc"]["least"] == min(each) < found["cc"]["low"] + 1e-9
    assert found["cc"]["low"] < found["cc"]["mean"] < found["cc"]["high"] <= 1 + 1e-9
    furthest = [np.abs(a - b).max() for a, b in zip(own[1], wanted[1], strict=True)]
    assert found["difference"]["greatest"] == pytest.approx(max(furthest))
    assert found["difference"]["mean"] == pytest.approx(sum(furthest) / 7)


def test_a_refusal_is_a_row():
    found = compare_clips([noise(0)], [noise(3)])
    rows = clips_table({"one": found, "two": {"refused": "no"}}).splitlines()
    assert rows[2].startswith(f"| one | {found['cc']['mean']:.5f} (")
    assert rows[3] == "| two | refused | | | |"
    assert all(row.count("|") == 6 for row in rows)
