"""How well the shipped weights say where people look at photographs that nobody trained on, beside other ways.

The photographs that `salema-train` validates on (every 14th from the 3rd on) are scored as with `salema-eval --protocol
exact`. The other ways: a Gaussian fitted to the fixations of the photographs that are trained on; the spectral residual
of Hou and Zhang (CVPR 2007), alone and times that Gaussian; and people, all but one of whom predict the one left out.
Usage: python -m salema.training.shipping.photograph_scores --src DIR FILE.json
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from salema.benchmarks.maps.fixations import seeded
from salema.benchmarks.metrics.protocols import METRICS, PROTOCOLS, score_frame
from salema.benchmarks.scores.bootstrap import interval
from salema.benchmarks.studies.common import write_study
from salema.export.weights.checkpoints import load_checkpoint, shipped_names
from salema.runtime.errors import exit_on_error
from salema.runtime.postprocess import to_grey
from salema.training.data.photographs import names_of, read_points
from salema.training.data.targets import BLUR, blurred, count_fixations
from salema.training.initial import choose_start
from salema.training.network import ClipNetwork
from salema.training.shipping.commands import parser_of, split
from salema.training.validation import SHOWN, validate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salema.training.data.clip import GazeSet

    Float = NDArray[np.float32]
    Scores = NDArray[np.float64]

CENTRE, RESIDUAL, BOTH, PEOPLE = "centre prior", "spectral residual", "spectral residual × centre", "people"  # noqa: RUF001
LABELS = {PEOPLE: "14 people predict the 15th"}
_FORMS = {"scores": "{mean:.3f} ({low:.3f}-{high:.3f})", "beyond_nano": "{mean:+.3f} ({low:+.3f} to {high:+.3f})"}
_SIZE_HW = (192, 256)
_SEEN_AT = 64  # columns at which the spectral residual is taken
_RNG = np.random.default_rng(0)  # draws nothing: the protocol samples nothing


class Centre:
    """A Gaussian fitted to fixations `(n, 2)`, x and y as fractions of width and height."""

    def __init__(self, points: Float) -> None:
        self._mean, self._inverse = points.mean(0), np.linalg.inv(np.cov(points.T))

    def __call__(self, image: NDArray[np.uint8]) -> Float:
        """Returns its density over an image, float32 `(H, W)`, 1 at its mean."""
        height, width = image.shape[:2]
        columns, rows = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
        away = np.stack([columns, rows], 2) - self._mean
        density: Float = np.exp(-0.5 * np.einsum("hwi,ij,hwj->hw", away, self._inverse, away)).astype(np.float32)
        return density


def spectral_residual(image: NDArray[np.uint8]) -> Float:
    """Returns the saliency of an image, uint8 BGR, by what its spectrum has beyond a smooth one; float32 `(H, W)`."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (_SEEN_AT, round(_SEEN_AT * height / width)), interpolation=cv2.INTER_AREA)
    spectrum = np.fft.fft2(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float64))
    logarithm = np.log(np.abs(spectrum) + 1e-12)
    residual = logarithm - cv2.blur(logarithm, (3, 3), borderType=cv2.BORDER_WRAP)
    back = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    blurred_back = cv2.GaussianBlur(back, (0, 0), 2.5)
    found = cv2.resize(blurred_back.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return found.astype(np.float32, copy=False)


def score_maps(gaze: GazeSet, predict: Callable[[NDArray[np.uint8]], Float]) -> Scores:
    """Scores a map of each photograph, in 8 bits; returns `(photographs, metrics)`."""
    scores = []
    for index in range(len(gaze.names)):
        (seen,) = gaze.seen(index)
        grey = to_grey(predict(seen.frame))
        scores.append(score_frame(grey, seen.density, seen.fixated, None, PROTOCOLS["exact"], _RNG))
    return np.array(scores)


def score_network(gaze: GazeSet, weights: str) -> Scores:
    """Scores the maps of shipped weights, in FP32; returns `(photographs, metrics)`."""
    start = choose_start(weights, "auto", Fraction(1), 0, lambda _: None)
    network = ClipNetwork(start.architecture, start.weights, start.alpha, 1.0, 0.0).eval()
    scores = validate(network, gaze, _SIZE_HW, range(len(gaze.names)))
    return np.array([scores[index] for index in range(len(gaze.names))])


def score_people(gaze: GazeSet, folder: Path) -> Scores:
    """Scores the density of all viewers but one against the fixations of that one, mean over the viewers.

    Returns:
        `(photographs, metrics)`; only the metrics of fixations: one viewer's density is another thing than 15 viewers'.
    """
    points, viewers = read_points(folder), _read_viewers(folder)
    scores = []
    for index, name in enumerate(gaze.names):
        (seen,) = gaze.seen(index)
        size_hw = (seen.frame.shape[0], seen.frame.shape[1])
        rows = []
        for viewer in np.unique(viewers[name]):
            is_own = viewers[name] == viewer
            grey = to_grey(blurred(count_fixations(points[name][~is_own], size_hw), BLUR))
            own = count_fixations(points[name][is_own], size_hw) > 0
            rows.append(score_frame(grey, None, own, None, PROTOCOLS["exact"], _RNG))
        scores.append(np.mean(rows, 0))
    return np.array(scores)


def _read_viewers(folder: Path) -> dict[str, NDArray[np.integer[Any]]]:
    with np.load(next(folder.glob("*.npz"))) as archive:
        names, image, viewer = (archive[name] for name in ("names", "image", "viewer"))
    return {name: viewer[image == index] for index, name in enumerate(names_of(names))}


def summarise(scores: Scores) -> dict[str, dict[str, float]]:
    """Returns mean and 95 % interval over photographs of each metric that is known, by its name."""
    columns = {name: scores[:, list(METRICS).index(name)] for name in SHOWN}
    ones = np.ones(len(scores), np.intp)
    found = {}
    for name, column in columns.items():
        if not np.isnan(column).any():
            low, high = interval(column, ones, seeded(0, "bootstrap"))
            found[name] = {"mean": float(column.mean()), "low": low, "high": high}
    return found


def measure(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Scores shipped weights of these names, and what they are held against, on a folder of photographs."""
    trained, held_out = split(folder)
    points = read_points(folder)
    centre = Centre(np.concatenate([points[name] for name in trained.names]))
    rows = {
        CENTRE: score_maps(held_out, centre),
        RESIDUAL: score_maps(held_out, spectral_residual),
        BOTH: score_maps(held_out, lambda image: spectral_residual(image) * centre(image)),
        **{name: score_network(held_out, name) for name in names},
        PEOPLE: score_people(held_out, folder),
    }
    return {
        "photographs": len(held_out.names),
        "trained_on": len(trained.names),
        "protocol": "exact",
        "weights_sha256": {name: load_checkpoint(name).sha256 for name in names},
        "scores": {name: summarise(found) for name, found in rows.items()},
        "beyond_nano": {name: summarise(rows[name] - rows["nano"]) for name in names if name != "nano"},
    }


def table(record: dict[str, Any], part: str) -> str:
    """Returns a table of `docs/models.md`: means over photographs, 95 % intervals in brackets.

    Of the part `scores`, or of `beyond_nano`: others' scores less those of `nano`, paired.
    """
    rows = [f"| | {' | '.join(METRICS[name] for name in SHOWN)} |", "|---" * (len(SHOWN) + 1) + "|"]
    for name, found in record[part].items():
        cells = [_FORMS[part].format(**found[metric]) if metric in found else "" for metric in SHOWN]
        label = f"`{name}`" if name in record["weights_sha256"] else LABELS.get(name, name)
        rows.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(rows)


@exit_on_error("photograph_scores")
def main() -> None:
    """Measures, writes JSON and prints the table."""
    parser = parser_of(__doc__)
    parser.add_argument("file", metavar="FILE.json")
    record = measure(parser.parse_args().src, shipped_names())
    write_study(record, timed=False)
    print("\n\n".join(table(record, part) for part in _FORMS))


if __name__ == "__main__":
    main()
