"""The progress bar of the commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from salema.runtime.closing import Closing
from salema.runtime.telling import harmless, tell

if TYPE_CHECKING:
    from tqdm import tqdm

    from salema.runtime.sources.playback import Playback


class FrameBar(Closing):
    """A progress bar of frames, and of videos if there are several; shown only if stderr is a terminal."""

    def __init__(self, videos: int, frames: int | None = None) -> None:
        self._videos, self._done = videos, 0
        self._is_known = True
        self._bar = _bar(frames)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()

    def begun(self, playback: Playback) -> None:
        """Adds a source's frames to the total."""
        self._is_known = self._is_known and playback.frame_count is not None
        if self._bar is not None:
            self._bar.total = (self._bar.total or 0) + (playback.frame_count or 0) if self._is_known else None
            self._bar.refresh()

    def advance(self, frames: int, videos: int = 0) -> None:
        """Counts frames and videos that are done."""
        self._done += videos
        if self._bar is None:
            return
        self._bar.update(frames)
        if self._videos > 1:
            self._bar.set_postfix_str(f"{self._done} of {self._videos} videos", refresh=bool(videos))

    def note(self, sentence: str) -> None:
        """Prints a note above the bar."""
        if self._bar is None:
            tell(f"note: {sentence}")
        else:
            self._bar.write(harmless(f"note: {sentence}"), file=sys.stderr)


def _bar(frames: int | None) -> tqdm[Any] | None:
    if not (sys.stderr and sys.stderr.isatty()):
        return None
    from tqdm import tqdm  # noqa: PLC0415 - importing it takes a tenth of a short command's time

    tqdm.monitor_interval = 0  # its monitor is a thread, and a process with threads can't be forked safely
    bar: tqdm[Any] = tqdm(total=frames, unit=" frames")
    return bar
