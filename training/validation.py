"""Scores of a network on what it was not trained on, by `salema-eval`'s own metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from salema.benchmarks.metrics.protocols import METRICS, PROTOCOLS, score_frame
from salema.benchmarks.scores.results import mean_known
from salema.runtime.errors import ModelError
from salema.runtime.postprocess import render, to_grey
from salema.runtime.preprocess import to_network_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salema.training.data.clip import GazeSet, Seen
    from salema.training.network import ClipNetwork, States

SHOWN = ("nss", "auc_judd", "cc", "sim", "kl")


def validate(
    network: ClipNetwork,
    gaze: GazeSet,
    size_hw: tuple[int, int],
    videos: Sequence[int],
    every: int = 1,
    stop: threading.Event | None = None,
) -> dict[int, NDArray[np.float64]]:
    """Scores maps as `salema-eval --protocol exact` does: 8-bit maps, resized to the ground truth.

    Args:
        network: is put into `eval()`, and back as it was.
        gaze: what to score on.
        size_hw: rows and columns of the network.
        videos: indices of the videos; each starts anew.
        every: of a video's frames, all of which are run, one in so many is scored.
        stop: ends it early; what it then returns lacks videos.

    Returns:
        The means over each video's frames `(7,)`, in the order of `METRICS`, NaN where none is known, by its index.

    Raises:
        ModelError: the network gives NaN or infinity.
        SalemaError: a file can't be read.
    """
    rng = np.random.default_rng(0)  # draws nothing: the protocol samples nothing
    scores: dict[int, NDArray[np.float64]] = {}
    for video in videos:
        frames = []
        for number, (seen, grey) in enumerate(run_video(network, gaze, size_hw, video, every)):
            if stop is not None and stop.is_set():
                return scores
            if number % every == 0:
                frames.append(score_frame(grey, seen.density, seen.fixated, None, PROTOCOLS["exact"], rng))
        scores[video] = mean_known(np.array(frames))
    return scores


def means(scores: Sequence[NDArray[np.float64]]) -> dict[str, float | None]:
    """Returns the means over videos of the metrics that are shown; None where no video has one."""
    mean = dict(zip(METRICS, mean_known(np.array(scores)), strict=True))
    return {name: None if np.isnan(mean[name]) else float(mean[name]) for name in SHOWN}


def run_video(
    network: ClipNetwork, gaze: GazeSet, size_hw: tuple[int, int], video: int, every: int = 1
) -> Iterator[tuple[Seen, NDArray[np.uint8]]]:
    """Yields the frames of a video, each with the 8-bit map `(H, W)` that the network gives, state carried.

    Raises:
        ModelError: the network gives NaN or infinity.
        SalemaError: a file can't be read.
    """
    was_training, states = network.training, None
    network.eval()
    try:
        for seen in gaze.seen(video, every):
            states, saliency = _step(network, seen, size_hw, states)
            if not np.isfinite(saliency).all():
                raise ModelError(f"{gaze.names[video]}: the network gives NaN or infinity for it")
            yield seen, to_grey(saliency)
    finally:
        network.train(was_training)


@torch.no_grad()
def _step(
    network: ClipNetwork, seen: Seen, size_hw: tuple[int, int], states: States | None
) -> tuple[States, NDArray[np.float32]]:
    frame = torch.from_numpy(np.ascontiguousarray(to_network_size(seen.frame, *size_hw)))
    maps, after = network(frame[None, None].to(network.step.device), states, torch.zeros(1, dtype=torch.int64))
    return after, maps[0, 0].float().cpu().numpy()


def overlays(
    network: ClipNetwork, gaze: GazeSet, size_hw: tuple[int, int], videos: Sequence[int]
) -> list[NDArray[np.uint8]]:
    """Draws the heat map over the first frame of each video, uint8 BGR `(H, W, 3)`."""
    firsts = (next(run_video(network, gaze, size_hw, video)) for video in videos)
    return [render(to_network_size(seen.frame, *size_hw), grey) for seen, grey in firsts]
