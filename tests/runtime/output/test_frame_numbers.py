import numpy as np
import pytest

from salema.runtime.output.frame_numbers import measure


def test_a_single_bright_pixel():
    saliency = np.zeros((4, 6), np.float32)
    saliency[1, 4] = 0.5
    found = measure(saliency, (8, 12))
    assert found.peak == 0.5
    # The map's pixel (1, 4) covers rows 2 and 3, columns 8 and 9 of the frame.
    assert (found.peak_y, found.peak_x) == (2.5, 8.5)
    assert (found.centre_y, found.centre_x) == (2.5, 8.5)
    assert found.entropy_bits == 0


def test_an_even_map():
    found = measure(np.full((4, 8), 0.25, np.float32), (4, 8))
    assert (found.centre_y, found.centre_x) == (1.5, 3.5)
    assert found.entropy_bits == pytest.approx(5)
    assert (found.peak_y, found.peak_x) == (0, 0)


def test_mass_at_two_places():
    saliency = np.zeros((2, 4), np.float32)
    saliency[0, 0], saliency[0, 3] = 0.25, 0.75
    found = measure(saliency, (2, 4))
    assert found.centre_x == pytest.approx(2.25)
    assert found.entropy_bits == pytest.approx(-(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75)))


def test_a_map_of_zeros_counts_as_even():
    found = measure(np.zeros((2, 4), np.float32), (20, 40))
    assert (found.peak, found.centre_y, found.centre_x, found.entropy_bits) == (0, 9.5, 19.5, 3)
