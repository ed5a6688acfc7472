"""What of a source is damaged, counted."""

from __future__ import annotations

from salema.runtime.errors import VideoError, reason
from salema.runtime.wording import counted


class Damage:
    """Counts what of a source could not be decoded or shown as it was meant.

    Args:
        name: the source, for messages.
        is_fatal: whether the first fault ends it.

    Attributes:
        packets: how many were left out.
        images: how many image files were left out.
        pictures: how many the decoder gave all the same, filled up as it could.
        first_s: when the first of these came, in seconds from the start; None where it had no time.
        why: what was wrong with the first packet or image that was left out.
        interlaced: pictures whose odd and even lines are of two moments, and were shown so.
        hdr: the curve (PQ or HLG) of pictures whose brightness was taken for that of ordinary ones, or None.
    """

    def __init__(self, name: str = "", *, is_fatal: bool = False) -> None:
        self.name, self.is_fatal = name, is_fatal
        self.packets = self.images = self.pictures = 0
        self.first_s: float | None = None
        self.why: str | None = None
        self.interlaced = 0
        self.hdr: str | None = None

    def leave_out(self, time_s: float | None, error: Exception) -> None:
        """Counts a packet.

        Raises:
            VideoError: the first fault is to end it.
        """
        self._note(time_s, reason(error))
        self.packets += 1
        self.why = self.why or reason(error)

    def leave_out_image(self, time_s: float, error: VideoError) -> None:
        """Counts an image file.

        Raises:
            VideoError: this error, where the first fault is to end it.
        """
        if self.is_fatal:
            raise error
        self._note(time_s, str(error))
        self.images += 1
        self.why = self.why or str(error)

    def mend(self, time_s: float | None) -> None:
        """Counts a picture.

        Raises:
            VideoError: the first fault is to end it.
        """
        self._note(time_s, "the decoder had to fill up a picture")
        self.pictures += 1

    @property
    def looks(self) -> list[str]:
        """Why pictures look odd, in words."""
        told = []
        if self.interlaced:
            are = "is" if self.interlaced == 1 else "are"
            of = counted(self.interlaced, "picture")
            told.append(f"{of} {are} interlaced, so that moving edges look like combs; --deinterlace makes them whole")
        if self.hdr:
            told.append(f"the video is HDR ({self.hdr}), and its colours look pale here; convert it to SDR before")
        return told

    def _note(self, time_s: float | None, why: str) -> None:
        if self.is_fatal:
            at = "" if time_s is None else f" at {time_s:.2f} s"
            raise VideoError(f"{self.name}: is damaged{at} ({why}); without --strict such places are left out")
        if not (self.packets or self.images or self.pictures):
            self.first_s = time_s
