import numpy as np

from salema.runtime.preprocess import to_network_size


def test_whole_factors_average_their_blocks():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    means = frame.reshape(16, 4, 24, 4, 3).mean((1, 3))
    assert np.abs(to_network_size(frame, 16, 24) - means).max() <= 0.5


def test_a_fractional_factor_weighs_by_area():
    frame = np.zeros((1, 3, 3), np.uint8)
    frame[0, :, 0] = [30, 90, 210]
    # Output pixels cover 1.5 input pixels each: (30 + 45) / 1.5 and (45 + 210) / 1.5.
    assert to_network_size(frame, 1, 2)[0, :, 0].tolist() == [50, 170]


def test_a_frame_of_the_right_size_is_passed_on():
    frame = np.zeros((16, 16, 3), np.uint8)
    assert to_network_size(frame, 16, 16) is frame
