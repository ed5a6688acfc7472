from fractions import Fraction

import numpy as np
import pytest
from runs import arrays_of, run
from videos import write_clip

from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.cli.run import main
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.source import find_sources


def test_time_aware_weights_follow_the_formula(cli, model, small_clip, tmp_path):
    """Every third frame, and then frames at uneven times."""
    run(cli, model, small_clip, "--npz", tmp_path / "a.npz", "--time-aware", "--vid-stride", 3)
    pts = [0, 1, 2, 5, 6, 10]
    uneven = write_clip(tmp_path / "u.mkv", moving_disc(6, 64, 96), pts=pts, rate=Fraction(25))
    run(cli, model, uneven, "--npz", tmp_path / "b.npz", "--time-aware")
    for name, clip, stride in (("a", small_clip, 3), ("b", uneven, 1)):
        found = arrays_of(tmp_path / f"{name}.npz")
        (source,) = find_sources([str(clip)])
        with load(model) as stream, Playback(source) as playback:
            frames = list(playback)[::stride]
            rate, tick = stream.spec.reference_fps, float(playback.time_base)
            last, states = None, []
            for frame in frames:
                elapsed = 1 if last is None else (frame.pts - last) * tick * rate
                before = stream.snapshot()
                saliency = stream.step(frame.image_bgr, elapsed)
                if last is not None:  # the state moved by 1 - 0.9 ** elapsed of the way that a weight of 1 takes it
                    after = stream.snapshot()["ema30"]
                    stream.restore({**before, "first": np.ones(1, np.float32)})
                    stream.step(frame.image_bgr)
                    fresh = stream.snapshot()["ema30"]
                    stream.restore({**before, "ema30": after, "first": np.zeros(1, np.float32)})
                    expected = before["ema30"] + (1 - 0.9**elapsed) * (fresh - before["ema30"])
                    np.testing.assert_allclose(after, expected, atol=1e-5 * np.abs(expected).max())
                last = frame.pts
                states.append(saliency)
        np.testing.assert_allclose(found["maps"], np.stack(states), atol=1e-6)


def dropped(keep, path):
    """Writes frames `keep` of two seconds at 30 fps: one black, then all white."""
    frames = np.full((60, 64, 96, 3), 255, np.uint8)
    frames[0] = 0
    return write_clip(path, frames[keep], pts=keep, rate=Fraction(30))


def test_dropped_frames_leave_the_memory_as_long_in_seconds(cli, model, tmp_path):
    """The frames that a variable rate keeps give the same maps as in the whole video at its constant rate."""
    whole = dropped(list(range(60)), tmp_path / "whole.mkv")
    run(cli, model, whole, "--npz", tmp_path / "plain.npz")
    plain = arrays_of(tmp_path / "plain.npz")["maps"]
    least = {}
    for name, keep in (("vfr", [0, 1, 2, 3, 4, 19, 20, 37, 38, 39, 58, 59]), ("stride", list(range(0, 60, 5)))):
        clip = dropped(keep, tmp_path / f"{name}.mkv")
        run(cli, model, clip, "--npz", tmp_path / "aware.npz", "--time-aware")
        run(cli, model, clip, "--npz", tmp_path / "unaware.npz")
        np.testing.assert_allclose(arrays_of(tmp_path / "aware.npz")["maps"], plain[keep], atol=2e-4)
        least[name] = np.abs(arrays_of(tmp_path / "unaware.npz")["maps"] - plain[keep]).max()
    assert min(least.values()) > 0.01, least


def test_the_reference_rate_is_the_models_or_the_users(cli, exported, small_clip, tmp_path):
    """At the clip's own 25 fps nothing changes; at twice that each frame counts for two."""
    stored, plain = exported(reference_fps=25), exported(reference_fps=50)
    run(cli, plain, small_clip, "--npz", tmp_path / "plain.npz")
    run(cli, stored, small_clip, "--npz", tmp_path / "stored.npz", "--time-aware")
    run(cli, plain, small_clip, "--npz", tmp_path / "given.npz", "--time-aware", "--reference-fps", 25)
    run(cli, plain, small_clip, "--npz", tmp_path / "twice.npz", "--time-aware")
    expected, same, given, twice = (
        arrays_of(tmp_path / f"{name}.npz")["maps"] for name in ("plain", "stored", "given", "twice")
    )
    np.testing.assert_allclose(same, expected, atol=1e-6)
    np.testing.assert_array_equal(given, same)
    assert np.abs(twice[1:] - expected[1:]).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--reference-fps", 30], "--reference-fps goes with --time-aware; add that, or leave it out"),
        (["--reference-fps", 0, "--time-aware"], "--reference-fps 0: give frames per second, 0.001 to 1000"),
        (["--reference-fps", "nan", "--time-aware"], "--reference-fps nan: give frames per second, 0.001 to 1000"),
    ],
)
def test_reference_rates_that_mean_nothing_are_refused(cli, model, small_clip, tmp_path, options, sentence):
    ran = cli(main, small_clip, "--model", model, "-o", tmp_path / "o.mp4", *options)
    assert (ran.code, ran.err, list(tmp_path.iterdir())) == (2, f"salema-run: {sentence}\n", [])


def test_time_aware_is_refused_where_there_is_no_average(cli, exported, small_clip, tmp_path):
    """Once, however many sources there are."""
    model = exported(arch="salgan")
    ran = cli(main, small_clip, small_clip, "--model", model, "-o", tmp_path / "o", "--time-aware")
    assert (ran.code, list(tmp_path.iterdir())) == (2, [])
    sentence = "salema-run: --time-aware: SalGAN has no average whose weight could follow the time"
    assert ran.err.splitlines()[-1] == sentence
    assert ran.err.count("--time-aware") == 1
