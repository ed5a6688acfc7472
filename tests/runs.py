"""Runs of salema-run that write no video, and what they wrote."""

import csv

import numpy as np

from salema.runtime.cli.run import main


def arrays_of(path):
    with np.load(path) as archive:
        return dict(archive)


def run(cli, model, clip, *options):
    ran = cli(main, clip, "--model", model, "--no-video", *options)
    assert ran.code == 0, ran.err
    return ran


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))
