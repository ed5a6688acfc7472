import cv2
import numpy as np
import pytest
import scenedetect
from scenedetect.common import FrameTimecode
from scenedetect.detector import FlashFilter
from scenedetect.scene_manager import compute_downscale_factor

from salema.runtime.video.cuts import CutDetector


def shots(size_hw, lengths, seed=0):
    """Shots of slowly moving noise patches, some alike, some not."""
    rng = np.random.default_rng(seed)
    for index, length in enumerate(lengths):
        small = rng.integers(0, 256, (9, 16, 3), dtype=np.uint8)
        small[:, :, index % 3] //= 2
        picture = cv2.resize(small, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
        for step in range(length):
            yield np.ascontiguousarray(np.roll(picture, step, axis=1))


def library_cuts(frames):
    """PySceneDetect itself, with the resize that its `SceneManager` does by default."""
    detector = scenedetect.ContentDetector(27.0, 15, filter_mode=FlashFilter.Mode.SUPPRESS)
    cuts = []
    for index, frame in enumerate(frames):
        factor = compute_downscale_factor(max(frame.shape[:2]))
        size = (max(1, round(frame.shape[1] / factor)), max(1, round(frame.shape[0] / factor)))
        small = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
        cuts += [cut.frame_num for cut in detector.process_frame(FrameTimecode(index, 25.0), small)]
    return cuts


@pytest.mark.parametrize("size_hw", [(64, 96), (144, 256), (180, 320), (271, 639), (320, 180)])
def test_cuts_are_those_of_pyscenedetect(size_hw):
    frames = list(shots(size_hw, [20, 30, 5, 4, 25, 16, 3, 40]))
    detector = CutDetector()
    found = [index for index, frame in enumerate(frames) if detector.is_cut(frame)]
    assert found == library_cuts(frames)
    assert len(found) >= 4


def test_another_size_and_a_reset_are_no_cuts():
    black, white = (np.full((32, 48, 3), value, np.uint8) for value in (0, 255))
    detector = CutDetector()
    for _ in range(20):
        assert not detector.is_cut(black)
    assert not detector.is_cut(np.full((48, 48, 3), 255, np.uint8))
    for _ in range(20):
        detector.is_cut(black)
    detector.reset()
    assert not detector.is_cut(white)
    for _ in range(13):
        assert not detector.is_cut(white)
    assert not detector.is_cut(black)  # the fourteenth after the start
    assert detector.is_cut(white)
