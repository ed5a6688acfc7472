"""The MP4 video of the pictures."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from salema.runtime.errors import KeptError, OutputError
from salema.runtime.files.whole_files import make_folder
from salema.runtime.output.sink import Drawn, Sink
from salema.runtime.postprocess import Look
from salema.runtime.sources.playback import Playback
from salema.runtime.video.video_writer import VideoWriter


class VideoSink(Sink):
    """An MP4 file with the sound of the source."""

    wants_picture = True

    def __init__(self, path: Path, playback: Playback, look: Look, start_pts: int = 0) -> None:
        self.path = path
        self._folder, self._playback, self._count, self._start_pts = path.parent, playback, 0, start_pts
        width = playback.width * (2 if look.view == "side-by-side" else 1)
        self._writer = VideoWriter(path, playback, playback.height, width, float(start_pts * playback.time_base))
        self._has_failed = False

    def _open(self, stack: ExitStack) -> None:
        make_folder(self._folder)
        stack.enter_context(self._writer)

    def write(self, drawn: Drawn) -> None:
        """See `Sink`."""
        assert drawn.pictures.image_bgr is not None
        try:
            frame = replace(drawn.frame, pts=drawn.frame.pts - self._start_pts)  # a part of a video begins at zero
            self._writer.write(drawn.pictures.image_bgr, frame)
            self._count += 1
        except OutputError:
            self._has_failed = True
            raise

    def finish(self, *, complete: bool) -> list[str]:
        """See `Sink`."""
        if self._has_failed:
            return self._finish_on_full_disk()
        try:
            notes = self._writer.finish(all_sound=complete)
        except OutputError as error:
            try:
                notes = self._finish_on_full_disk()
            except OutputError:  # nothing of it can be kept: the first error says why
                raise error from None
            raise KeptError(str(error), notes) from error
        lost = "the sound is left out: that of a live source is not kept"
        problem = lost if self._playback.has_lost_sound else self._writer.sound_problem
        return [*notes, problem] if problem else notes

    def _finish_on_full_disk(self) -> list[str]:
        missing = self._count - self._writer.finish_on_full_disk()
        frames = "frame" if missing == 1 else f"{missing} of these frames"
        return [f"{self.path} lacks the last {frames}"] if missing > 0 else []
