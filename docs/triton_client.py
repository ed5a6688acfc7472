"""Sends a video to a Triton server that serves a repository of `salema-export --emit triton`; writes its maps.

It needs no salema: pip install 'tritonclient[grpc]' opencv-python
"""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


class Stream:
    """One video on the server: a sequence. The server keeps its memory, and forgets it after 10 s without a frame."""

    def __init__(self, client: triton.InferenceServerClient, model: str, sequence: int) -> None:
        """Reads the network's size; `sequence` must differ from those of all other clients, and not be 0."""
        self.client, self.model, self.sequence = client, model, sequence
        height, width, _ = client.get_model_config(model).config.input[0].dims
        self.size_wh = (width, height)
        self.is_new = True

    def step(self, frame_bgr: np.ndarray, *, last: bool = False) -> np.ndarray:
        """Takes the next frame, uint8 BGR of any size; returns its raw sigmoid map, float32 `(H, W)`."""
        frame = cv2.resize(frame_bgr, self.size_wh, interpolation=cv2.INTER_AREA)[None]
        tensor = triton.InferInput("frame", frame.shape, "UINT8")
        tensor.set_data_from_numpy(frame)
        try:
            answer = self._ask(tensor, last=last)
        except InferenceServerException as error:
            if "START flag" not in str(error):
                raise
            self.is_new = True  # it was idle for too long: it starts as a new video does
            answer = self._ask(tensor, last=last)
        self.is_new = last
        return answer.as_numpy("saliency")[0, 0]

    def _ask(self, tensor: triton.InferInput, *, last: bool) -> triton.InferResult:
        return self.client.infer(
            self.model, [tensor], sequence_id=self.sequence, sequence_start=self.is_new, sequence_end=last
        )


def frames_of(video: str) -> Iterator[tuple[np.ndarray, bool]]:
    """Yields a video's frames, and whether each is the last one."""
    capture = cv2.VideoCapture(video)
    is_read, frame = capture.read()
    if not is_read:
        raise SystemExit(f"{video}: no such video, or none that OpenCV can read")
    while is_read:
        is_read, following = capture.read()
        yield frame, not is_read
        frame = following


def main() -> None:
    """Runs the client."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", help="a file, a URL, or a pattern such as frames/%%04d.png")
    parser.add_argument("maps", type=Path, help="folder for the maps, 0001.png and so on")
    parser.add_argument("--url", default="localhost:8001", help="the server's gRPC port [default: %(default)s]")
    parser.add_argument("--model", default="salema")
    parser.add_argument("--sequence", type=int, help="number of this stream, not 0 [default: a random one]")
    options = parser.parse_args()
    options.maps.mkdir(parents=True, exist_ok=True)
    with triton.InferenceServerClient(options.url) as client:
        # A number that no other client has: two of one number would share a memory.
        stream = Stream(client, options.model, options.sequence or secrets.randbits(62) + 1)
        stream.step(np.zeros((1, 1, 3), np.uint8), last=True)  # the server's first step is slow; a sequence of its own
        for number, (frame, last) in enumerate(frames_of(options.video), 1):
            saliency = stream.step(frame, last=last)
            spread = np.ptp(saliency) or np.float32(1)
            picture = np.floor((saliency - saliency.min()) / spread * np.float32(255) + np.float32(0.5))
            cv2.imwrite(str(options.maps / f"{number:04}.png"), picture.astype(np.uint8))


if __name__ == "__main__":
    main()
