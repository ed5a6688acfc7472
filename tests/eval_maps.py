"""Predictions for the synthetic datasets, their scores by salema-eval, and made-up scores."""

import json

import cv2
import numpy as np

from salema.benchmarks.metrics.protocols import METRICS
from salema.benchmarks.scores.cli import main
from salema.benchmarks.scores.results import DatasetScores, VideoScores


def predict(made, folder, change=lambda density: density):
    """Writes predictions made from the densities, with the names of the ground truth's frames."""
    for video in made.videos:
        (folder / video).mkdir(parents=True)
        for name in made.frame_names:
            density = cv2.imread(str(made.truth / video / f"maps/{name}.png"), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(folder / video / f"{name}.png"), change(density))
    return folder


def scored(cli, made, dataset, tmp_path, *arguments):
    file = tmp_path / "scores.json"
    ran = cli(main, "--dataset", dataset, "--gt", made.source, "--json", file, *arguments)
    assert ran.code == 0, ran.err
    return json.loads(file.read_text())


def model(videos, label="m"):
    """Scores by video: rows of one number that stands for every metric, or of all of them."""
    scored = {}
    for key, rows in videos.items():
        scores = np.array([np.broadcast_to(row, len(METRICS)) for row in rows], float)
        scored[key] = VideoScores(key, tuple(map(str, range(len(rows)))), scores, (), ())
    return DatasetScores(label, scored, (), ())
