"""What a run did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from salema.runtime.errors import SalemaError

STAGES = ("decode", "preprocess", "step", "postprocess", "encode")


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        frames: number of frames processed.
        frames_expected: number of frames the source should have, or None.
        seconds: wall time without loading the model.
        fps: frames per second of wall time.
        stage_ms: mean milliseconds per frame of each of `STAGES`, which run in parallel; `encode` is all writing.
        cuts: number of shots that began, without the first; None if cuts were not detected.
        cuts_reset: whether each cut reset the state; None if cuts were not detected.
        source_start_s: where in the source the outputs' times begin.
        damaged_packets: number of video packets that could not be decoded and were left out.
        damaged_pictures: number of pictures that the decoder concealed.
        damaged_images: number of image files that could not be read and were left out.
        first_damage_s: time of the first damage in the source, or None if unknown.
        damage_why: what was wrong with the first packet or image left out, or None.
        dropped: number of frames of a live source that came while the network was busy.
        outages: how often a live source was lost and came back.
        outage_s: their total length.
        frames_lost: estimated number of frames lost in that time.
        interrupted: whether SIGINT, SIGTERM or SIGHUP ended the run.
        error: why the source or an output broke off, or None.
        lost: outputs that could not be kept.
        ended_by: `interrupted`, the closed window or the error; None if the run reached its end.
        notes: other sentences for the user: lost sound, maps of an earlier run.
    """

    frames: int
    frames_expected: int | None
    seconds: float
    fps: float
    stage_ms: dict[str, float]
    cuts: int | None
    dropped: int
    outages: int
    outage_s: float
    frames_lost: int
    interrupted: bool
    error: str | None
    cuts_reset: bool | None = None
    source_start_s: float = 0
    damaged_packets: int = 0
    damaged_pictures: int = 0
    damaged_images: int = 0
    first_damage_s: float | None = None
    damage_why: str | None = None
    lost: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ended_by: str | None = None


Outcome = Summary | Literal["skipped"] | SalemaError | OSError | None
"""What became of a video; None if it was stopped before it began."""
