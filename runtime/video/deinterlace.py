"""Makes interlaced pictures whole; their odd and even lines are of two moments."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.error
import av.filter

# Each picture gives one picture; only those that are marked as interlaced change.
_BWDIF = {"mode": "send_frame", "parity": "auto", "deint": "interlaced"}


def deinterlaced(frames: Iterator[av.VideoFrame], time_base: Fraction) -> Iterator[av.VideoFrame]:
    """Yields the decoded frames with their times; interlaced ones are made whole. `time_base` is the times' unit."""
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
    """Pushes a frame, or the end, into a graph, and yields the frames that are ready."""
    if graph is None:
        return
    graph.push(frame)
    while True:
        try:
            whole: Any = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        if whole.pts is not None and whole.time_base is not None:  # bwdif counts in half units
            whole.pts, whole.time_base = round(whole.pts * whole.time_base / time_base), time_base
        whole.duration = durations.pop(whole.pts, None) or 0
        yield whole
