"""The README's picture: two frames of Big Buck Bunny, and nano's maps laid over them, by the clip of `make clips`.

Usage: python -m salema.training.shipping.picture --video bigbuckbunny.mp4 docs/result.jpg
"""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.runtime import load
from salema.runtime.errors import exit_on_error
from salema.runtime.files.whole_files import write_bytes
from salema.runtime.postprocess import render, to_grey
from salema.runtime.video.video_reader import VideoReader
from salema.training.shipping.commands import parser_of, run

SHOWN = (40, 130)  # frames, from 0
_WIDTH = 480


def draw(model: Path, video: Path) -> NDArray[np.uint8]:
    """Returns the picture, uint8 BGR: on each row a frame, and the same with its map over it.

    Raises:
        SalemaError: the model can't be run, or the video can't be read.
    """
    rows = []
    with load(model, backend="onnxruntime", device="cpu") as stream, VideoReader(video) as reader:
        for number, frame in enumerate(islice(reader, max(SHOWN) + 1)):
            grey = to_grey(stream.step(frame.image_bgr))
            if number in SHOWN:
                rows.append(np.hstack([frame.image_bgr, render(frame.image_bgr, grey)]))
    whole = np.vstack(rows)
    size_wh = (2 * _WIDTH, round(2 * _WIDTH * whole.shape[0] / whole.shape[1]))
    return np.asarray(cv2.resize(whole, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


@exit_on_error("picture")
def main() -> None:
    """Draws it with the weights that ship."""
    parser = parser_of(__doc__, of_photographs=False)
    parser.add_argument("--video", type=Path, required=True, help="the clip")
    parser.add_argument("file", type=Path, metavar="FILE.jpg")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run("salema-export", "--weights", "nano", "-o", folder)
        picture = draw(Path(folder), given.video)
    write_bytes(given.file, cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())


if __name__ == "__main__":
    main()
