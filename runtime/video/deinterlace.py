"""Interlaced pictures, whose odd and even lines are of two moments, made whole ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av
import av.error
import av.filter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction


# One picture for each, and only for those that say that they are interlaced.
_BWDIF = {"mode": "send_frame", "parity": "auto", "deint": "interlaced"}


def deinterlaced(frames: Iterator[av.VideoFrame], time_base: Fraction) -> Iterator[av.VideoFrame]:
    """Yields frames with their times as they are and, where they were interlaced, with whole pictures.

    Args:
        frames: as they are decoded.
        time_base: the unit of their times.
    """
    graph, kind = None, None
    durations: dict[int | None, int | None] = {}
    for frame in frames:
        now = (frame.width, frame.height, frame.format.name)
        if now != kind:
            yield from _pull(graph, None, durations, time_base)
            graph, kind = _graph(frame, time_base), now
        durations[frame.pts] = frame.duration
        yield from _pull(graph, frame, durations, time_base)
    yield from _pull(graph, None, durations, time_base)


def _graph(frame: av.VideoFrame, time_base: Fraction) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    bwdif, sink = graph.add("bwdif", **_BWDIF), graph.add("buffersink")
    source.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()
    return graph


def _pull(
    graph: av.filter.Graph | None,
    frame: av.VideoFrame | None,
    durations: dict[int | None, int | None],
    time_base: Fraction,
) -> Iterator[av.VideoFrame]:
    """Gives a graph a frame, or the end, and yields what it has ready."""
    if graph is None:
        return
    graph.push(frame)
    while True:
        try:
            made: Any = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        if made.pts is not None and made.time_base is not None:  # bwdif counts in halves
            made.pts, made.time_base = round(made.pts * made.time_base / time_base), time_base
        made.duration = durations.pop(made.pts, None) or 0
        yield made
