from salema.benchmarks.studies.ema_state import FRAMES, follow


def test_the_figure_shows_a_float16_state_that_stalls_and_a_float32_state_that_does_not():
    found = follow()
    assert all(len(values) == FRAMES for values in found.values())
    assert abs(found["float32"][-1] / found["float64"][-1] - 1) < 1e-5
    assert found["float16"][-1] == found["float16"][-500]
    assert 0.02 < 1 - found["float16"][-1] < 0.03
