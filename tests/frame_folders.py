"""Folders of frames for the datasets, and the names of the files in a folder."""

import cv2

from salema.export.weights.seeded import moving_disc


def write_frames(folder, names, size=(48, 64), seed=0):
    folder.mkdir(parents=True)
    for name, frame in zip(names, moving_disc(len(names) + seed, *size)[seed:], strict=True):
        cv2.imwrite(str(folder / name), frame)


def numbered(count, pattern="{:04d}.png", first=1):
    return [pattern.format(number) for number in range(first, first + count)]


def names_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def maps_under(folder):
    return [name for name in names_under(folder) if not name.endswith("/salema.json")]
