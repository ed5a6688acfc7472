"""What a run did."""

from __future__ import annotations

from dataclasses import dataclass

STAGES = ("decode", "preprocess", "step", "postprocess", "encode")


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        frames: frames processed.
        frames_expected: what the source said it holds, or None.
        seconds: wall time, model loading not included.
        fps: frames over seconds.
        stage_ms: mean milliseconds per frame of each of `STAGES`, which run side by side; encode is all writing.
        cuts: shots that began, the first one not counted; None where nobody looked for them.
        cuts_reset: whether each of them emptied the memory; None as well.
        source_start_s: where in the source the times of the outputs begin.
        damaged_packets: packets of the pictures that could not be decoded, and were left out.
        damaged_pictures: pictures that the decoder filled up as it could.
        damaged_images: image files that could not be read, and were left out.
        first_damage_s: when the first of these came, in seconds of the source; None where nobody knows.
        damage_why: what was wrong with the first packet or image that was left out, or None.
        dropped: frames of a live source that came while the network was busy.
        outages: how often a live source was lost and found again.
        outage_s: for how long in all.
        frames_lost: how many frames would have come in that time.
        interrupted: whether SIGINT, SIGTERM or SIGHUP ended it.
        error: why the source or an output broke off, or None.
        lost: outputs of which nothing could be kept.
        ended_by: `interrupted`, a closed window or the error, where it did not go to its end; else None.
        notes: what a user should know besides: sound that was lost, maps of an earlier run.
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
