import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from salema.runtime import preprocess
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


SIZES = [(1080, 1920), (720, 1280), (2160, 3840), (1000, 1777), (359, 1400), (1201, 333), (1920, 256), (192, 3000)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("network", [(192, 256), (64, 96)])
def test_bands_give_what_one_piece_gives(size, network, monkeypatch):
    monkeypatch.setattr(preprocess, "_LARGE", 0)
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = cv2.resize(frame, network[::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(to_network_size(frame, *network), expected)


def test_bands_are_taken_where_both_axes_shrink_only(monkeypatch):
    monkeypatch.setattr(preprocess, "_LARGE", 0)
    taken = []
    monkeypatch.setattr(preprocess, "_in_bands", lambda frame, *size: taken.append(frame.shape))
    for size in ((100, 100), (200, 200), (192, 256), (400, 512)):
        to_network_size(np.zeros((*size, 3), np.uint8), 192, 256)
    assert taken == [(400, 512, 3)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_a_forked_process_has_threads_of_its_own():
    code = """
import os, signal
import numpy as np
from salema.runtime.preprocess import to_network_size
frame = np.zeros((1080, 1920, 3), np.uint8)
to_network_size(frame, 192, 256)
if os.fork() == 0:
    signal.alarm(20)
    os._exit(7 if to_network_size(frame, 192, 256).shape == (192, 256, 3) else 1)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "7\n", ran.stderr
