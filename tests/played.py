"""Plays a source as a run would, without a model."""

from salema.runtime.sources.playback import Playback
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import find_sources


def play(path, **options):
    (source,) = find_sources([str(path)])
    with Playback(source, Selection(**options)) as playback:
        return playback, list(playback)


def times_s(playback, frames):
    return [float(frame.pts * playback.time_base) for frame in frames]
