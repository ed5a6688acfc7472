"""Results of `salema-eval`: a table as text, and everything as JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from salema.benchmarks.metrics.protocols import METRICS, Mean, Protocol
from salema.benchmarks.scores.bootstrap import LEVEL, RESAMPLES, Difference, basis, compare_scores, video_differences
from salema.benchmarks.scores.published import FIVE, ROWS, Agreement, against_published, in_part, published_differences
from salema.benchmarks.scores.results import DatasetScores, VideoScores
from salema.runtime.files.whole_files import write_bytes
from salema.runtime.telling import csv_text, show
from salema.runtime.wording import counted, listed

_NOT_DEFINED = "-"
STDOUT = Path("-")


@dataclass(frozen=True)
class Evaluation:
    """Scores, and how they were made.

    Attributes:
        dataset: the dataset's name.
        protocol: how frames were scored.
        seed: of the random draws.
        models: the scores of each model; the first is the one that others are compared to.
        with_rows: whether the paper's rows are wanted beside them.
        with_published: whether they are compared with SalEMA30's published scores per video.
    """

    dataset: str
    protocol: Protocol
    seed: int
    models: list[DatasetScores]
    with_rows: bool = False
    with_published: bool = False

    def differences(self, over: Mean) -> dict[str, Difference]:
        """Compares the second model with the first."""
        if over not in self._differences:
            self._differences[over] = compare_scores(self.models[0], self.models[1], over, self.seed)
        return self._differences[over]

    @cached_property
    def _differences(self) -> dict[Mean, dict[str, Difference]]:
        return {}  # computed once: the table, JSON and CSV show the same numbers

    @cached_property
    def agreements(self) -> dict[str, dict[str, Agreement]]:
        """Every model compared with what was published of SalEMA30."""
        return {model.label: against_published(model) for model in self.models} if self.with_published else {}


def text_lines(found: Evaluation) -> Iterator[str]:
    """Yields the lines of the table, and those under it."""
    yield f"{found.dataset}, protocol {found.protocol.name}, seed {found.seed}"
    rows = {}
    for model in found.models:
        for over in found.protocol.means:
            mark = "" if over == found.protocol.means[0] else "also "
            rows[f"{model.label} ({mark}mean over {over})"] = list(model.mean(over))
    if found.with_rows:
        unknown = [math.nan] * (len(METRICS) - len(FIVE))
        rows |= {f"{name} (published)": [*scores, *unknown] for name, scores in ROWS.items()}
    yield from _table("", METRICS.values(), {name: [_number(x) for x in row] for name, row in rows.items()})
    if found.with_rows:
        yield "published: DHF1K's validation videos, protocol salema"
    if len(found.models) > 1:
        yield from _difference_lines(found)
    for label, agreements in found.agreements.items():
        if not agreements:  # frames that could not be read have left no video whole: a note says so
            continue
        yield ""
        yield f"{label} against the published scores of SalEMA30, {counted(_videos(agreements), 'video')}"
        yield from _table("", (METRICS[name] for name in agreements), _agreement_rows(agreements))


def _difference_lines(found: Evaluation) -> Iterator[str]:
    first, second = found.models
    over = found.protocol.means[0]
    differences = found.differences(over)
    videos = max(difference.videos for difference in differences.values())
    yield ""
    yield f"{second.label} less {first.label}, mean over {over}, with the paired bootstrap's {LEVEL:.0%} interval"
    rows = {
        "difference": [_number(difference.mean, "+.5f") for difference in differences.values()],
        "from": [_number(difference.low, "+.5f") for difference in differences.values()],
        "to": [_number(difference.high, "+.5f") for difference in differences.values()],
    }
    yield from _table("", METRICS.values(), rows)
    yield basis(videos)


def _agreement_rows(agreements: dict[str, Agreement]) -> dict[str, list[str]]:
    return {
        "mean difference": [_number(found.mean_difference, "+.4f") for found in agreements.values()],
        "largest difference": [_number(found.largest_difference, ".4f") for found in agreements.values()],
        "correlation": [_number(found.correlation, ".4f") for found in agreements.values()],
    }


def _videos(agreements: dict[str, Agreement]) -> int:
    return max((found.videos for found in agreements.values()), default=0)


def _table(head: str, columns: Iterable[str], rows: dict[str, list[str]]) -> Iterator[str]:
    names = list(columns)
    wide = max(len(name) for name in (head, *rows))
    cells = [max(len(text) for text in column) for column in zip(names, *rows.values(), strict=True)]
    for name, row in ((head, names), *rows.items()):
        shown = (text.rjust(width) for text, width in zip(row, cells, strict=True))
        yield "  ".join([name.ljust(wide), *shown]).rstrip()


def _number(value: float | None, form: str = ".3f") -> str:
    if value is None or math.isnan(value):
        return _NOT_DEFINED
    text = format(value, form)
    return text if float(text) else format(0, form.lstrip("+"))  # no -0.000


def notes(found: Evaluation) -> Iterator[str]:
    """Yields what was left out, a sentence each."""
    for model in found.models:
        videos = model.videos.values()
        frames = sum(len(video.frames) for video in videos)
        yield f"{model.label}: {counted(frames, 'frame')} of {counted(len(videos), 'video')} scored"
        yield from (f"{model.label}: {maker}" for maker in model.made_by)
        if model.without_truth:
            yield f"{model.label}: {_some(model.without_truth)} without ground truth skipped"
        if model.without_maps:
            yield f"{model.label}: {_some(model.without_maps)} of the ground truth skipped, with no maps"
        if model.unshared:
            why = "no frame in common with the other" if len(found.models) > 1 else "no name of a map fits a frame"
            yield f"{model.label}: {_some(model.unshared)} left out: {why}"
        if found.with_published and (partly := in_part(model)):
            yield f"{model.label}: {_some(tuple(partly))} not scored whole, and not compared with the published scores"
        for (noun, one, several), kind in _LEFT_OUT.items():
            names = [f"{video.name}/{name}" for video in videos for name in getattr(video, kind)]
            if names:
                what = one if len(names) == 1 else several
                yield f"{model.label}: {counted(len(names), noun)} {what}: {listed(names)}"
        if model.few_others is not None:
            wanted = found.protocol.other_frames
            are = "is" if model.few_others == 1 else "are"
            yield f"{model.label}: s-AUC takes {wanted} other frames; there {are} {model.few_others} to draw from"
        for name, count in model.unscored().items():
            have = "has" if count == 1 else "have"
            yield f"{model.label}: {count} of {counted(frames, 'frame')} {have} no {METRICS[name]}: {_WHY[name]}"


_LEFT_OUT = {  # what is said of one, and of several
    ("frame", *["left out, of which the other has no map"] * 2): "unshared",
    ("frame", *["left out, for what could not be read"] * 2): "failed",
    ("frame", "of the ground truth has no map", "of the ground truth have no map"): "missing",
    ("map", "belongs to no frame of the ground truth", "belong to no frame of the ground truth"): "extra",
}
_WHY = {
    "nss": "no fixations",
    **dict.fromkeys(("auc_judd", "auc_borji"), "no fixations, or every pixel fixated"),
    "s_auc": "no fixations here or in other videos, or every pixel fixated",
    **dict.fromkeys(("cc", "sim", "kl"), "no density, or a flat one"),
}


def _some(names: tuple[str, ...]) -> str:
    return f"{counted(len(names), 'video')} ({listed(names)})"


def as_json(found: Evaluation) -> dict[str, Any]:
    """Returns everything, ready for JSON: None stands for what is not defined."""
    record: dict[str, Any] = {
        "dataset": found.dataset,
        "protocol": found.protocol.name,
        "mean": f"over {found.protocol.means[0]}",
        "seed": found.seed,
        "models": [_model_json(model) for model in found.models],
        "failed": found.models[0].failed,
    }
    if len(found.models) > 1:
        first, second = found.models
        record["difference"] = {
            "of": second.label,
            "to": first.label,
            "interval": LEVEL,
            "resamples": RESAMPLES,
            **{f"over_{over}": _each(found.differences(over)) for over in ("videos", "frames")},
            "videos": {name: _known(METRICS, row) for name, row in video_differences(first, second).items()},
        }
    if found.with_rows:
        record["published_rows"] = {name: dict(zip(FIVE, row, strict=True)) for name, row in ROWS.items()}
    if found.with_published:
        record["against_published"] = {
            model.label: {
                "metrics": _each(found.agreements[model.label]),
                "videos": {key: _known(FIVE, row) for key, row in published_differences(model).items()},
            }
            for model in found.models
        }
    return record


def _model_json(model: DatasetScores) -> dict[str, Any]:
    return {
        "label": model.label,
        "made_by": list(model.made_by),
        "mean_over_videos": _known(METRICS, model.mean("videos")),
        "mean_over_frames": _known(METRICS, model.mean("frames")),
        "frames": sum(len(video.frames) for video in model.videos.values()),
        "frames_without_score": model.unscored(),
        "videos_without_ground_truth": list(model.without_truth),
        "videos_without_maps": list(model.without_maps),
        "videos_left_out": list(model.unshared),
        "videos": {video.name: _video_json(video) for video in model.videos.values()},
    }


def _video_json(video: VideoScores) -> dict[str, Any]:
    scores = _known(METRICS, video.means)
    left_out = {
        "missing": video.missing,
        "extra": video.extra,
        "the_other_lacks": video.unshared,
        "failed": video.failed,
    }
    return {"frames": len(video.frames), **scores, **{name: list(names) for name, names in left_out.items()}}


def _known(names: Iterable[str], row: Iterable[float]) -> dict[str, float | None]:
    return {name: None if math.isnan(x) else float(x) for name, x in zip(names, row, strict=True)}


def _each(found: dict[str, Any]) -> dict[str, Any]:
    return {name: asdict(value) for name, value in found.items()}


def write_json(path: Path, found: Evaluation) -> None:
    """Writes everything as JSON. `path` may be `STDOUT`.

    Raises:
        OutputError: it can't be written.
    """
    if path == STDOUT:
        show(json.dumps(as_json(found), indent=1))
        return
    write_bytes(
        path, (json.dumps(as_json(found), indent=1, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
    )


def write_csv(path: Path, found: Evaluation) -> None:
    """Writes a line for each model and video: its frames, and its means over them; then the differences of each video.

    `path` may be `STDOUT`.

    Raises:
        OutputError: it can't be written.
    """
    if path == STDOUT:
        show(_csv(found).rstrip("\n"))
    else:
        write_bytes(path, _csv(found).encode("utf-8", "backslashreplace"))


def _csv(found: Evaluation) -> str:
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(
        ["protocol", "seed", "model", "video", "frames", "missing", "extra", "the_other_lacks", "failed", *METRICS]
    )
    for model, name, counts, scores in _csv_rows(found):
        known = ("" if math.isnan(score) else score for score in scores)
        lines.writerow([found.protocol.name, found.seed, csv_text(model), csv_text(name), *counts, *known])
    return file.getvalue()


def _csv_rows(found: Evaluation) -> Iterator[tuple[str, str, list[int | str], Iterable[float]]]:
    for model in found.models:
        for video in model.videos.values():
            counts = [len(names) for names in (video.frames, video.missing, video.extra, video.unshared, video.failed)]
            yield model.label, video.name, [*counts], video.means
    for second in found.models[1:]:
        for name, scores in video_differences(found.models[0], second).items():
            yield f"{second.label} less {found.models[0].label}", name, [""] * 5, scores
    for model in found.models if found.with_published else ():
        for name, scores in published_differences(model).items():
            given = dict(zip(FIVE, scores, strict=True))
            row = [given.get(metric, math.nan) for metric in METRICS]
            yield f"{model.label} less the published SalEMA30", name, [""] * 5, row
