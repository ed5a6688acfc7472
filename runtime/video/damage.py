"""Counts the damage of a source."""

from __future__ import annotations

from typing import NoReturn

from salema.runtime.errors import VideoError, reason
from salema.runtime.wording import counted


class Damage:
    """Counts the parts of a source that could not be decoded, or not shown as they should be.

    Args:
        name: the source, for messages.
        is_fatal: whether the first fault ends the run.
        is_numbered: whether frames count by their numbers, so that the first lost frame ends the run.

    Attributes:
        packets: how many packets were left out.
        images: how many image files were left out.
        pictures: how many damaged pictures the decoder returned, with the missing parts filled in.
        first_s: when the first of these came, in seconds from the start; None if it had no time.
        why: what was wrong with the first packet or image that was left out.
        interlaced: how many interlaced pictures were shown, whose odd and even lines are of two moments.
        hdr: the HDR curve (PQ or HLG) of pictures that were shown as if they were SDR, or None.
    """

    def __init__(self, name: str = "", *, is_fatal: bool = False, is_numbered: bool = False) -> None:
        self.name, self._is_fatal, self._is_numbered = name, is_fatal, is_numbered
        self.packets = self.images = self.pictures = 0
        self.first_s: float | None = None
        self.why: str | None = None
        self.interlaced = 0
        self.hdr: str | None = None

    def leave_out(self, time_s: float | None, error: Exception) -> None:
        """Counts a packet that is left out.

        Raises:
            VideoError: the first fault should end the run.
        """
        if self._is_numbered:
            advice = ", and maps after that would have other frames' numbers; copy or download it anew"
            self._fail(time_s, reason(error), advice)
        self._note(time_s, reason(error))
        self.packets += 1
        self.why = self.why or reason(error)

    def leave_out_image(self, time_s: float, error: VideoError) -> None:
        """Counts an image file that is left out.

        Raises:
            VideoError: this error, if the first fault should end the run.
        """
        if self._is_fatal or self._is_numbered:
            raise error
        self._note(time_s, str(error))
        self.images += 1
        self.why = self.why or str(error)

    def mend(self, time_s: float | None) -> None:
        """Counts a damaged picture that the decoder returned.

        Raises:
            VideoError: the first fault should end the run.
        """
        self._note(time_s, "the decoder had to fill up a picture")
        self.pictures += 1

    @property
    def looks(self) -> list[str]:
        """Why pictures look odd, in words."""
        notes = []
        if self.interlaced and not self._is_numbered:  # a dataset's frames are run as they are
            are = "is" if self.interlaced == 1 else "are"
            of = counted(self.interlaced, "picture")
            notes.append(f"{of} {are} interlaced, so that moving edges look like combs; --deinterlace makes them whole")
        if self.hdr:
            notes.append(f"the video is HDR ({self.hdr}), and its colours look pale here; convert it to SDR before")
        return notes

    def _note(self, time_s: float | None, why: str) -> None:
        if self._is_fatal:
            self._fail(time_s, why, "; without --strict such places are left out")
        if not (self.packets or self.images or self.pictures):
            self.first_s = time_s

    def _fail(self, time_s: float | None, why: str, what_follows: str) -> NoReturn:
        at = "" if time_s is None else f" at {time_s:.2f} s"
        raise VideoError(f"{self.name}: is damaged{at} ({why}){what_follows}")
