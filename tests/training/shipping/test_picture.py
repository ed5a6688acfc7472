import numpy as np

from salema.runtime import load
from salema.runtime.postprocess import render, to_grey
from salema.runtime.video.video_reader import VideoReader
from salema.training.shipping import picture
from salema.training.shipping.picture import draw


def test_each_row_is_a_frame_and_its_map(exported, small_clip, monkeypatch):
    monkeypatch.setattr(picture, "SHOWN", (1, 3))
    with VideoReader(small_clip) as reader:
        frames = [frame.image_bgr for frame, _ in zip(reader, range(4), strict=False)]
    height, width = frames[0].shape[:2]
    monkeypatch.setattr(picture, "_WIDTH", width)
    folder = exported(imgsz_hw=(64, 96))
    drawn = draw(folder, small_clip)
    assert drawn.shape == (2 * height, 2 * width, 3)
    with load(folder, backend="onnxruntime", device="cpu") as stream:
        maps = [to_grey(stream.step(frame)) for frame in frames]
    assert np.array_equal(drawn[height:, :width], frames[3])
    assert np.array_equal(drawn[height:, width:], render(frames[3], maps[3]))
    assert np.array_equal(drawn[:height, width:], render(frames[1], maps[1]))
