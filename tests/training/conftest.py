from pathlib import Path

import cv2
import numpy as np
import pytest


def write_photographs(folder: Path, count: int = 8, size_hw=(48, 64), per_picture: int = 12) -> Path:
    """Writes photographs with a bright square each, at which everybody looks."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    names, image, x, y = [], [], [], []
    for index in range(count):
        height, width = size_hw
        row, column = rng.integers(8, height - 8), rng.integers(8, width - 8)
        picture = rng.integers(60, 100, (height, width, 3), dtype=np.uint8)
        picture[row - 5 : row + 5, column - 5 : column + 5] = 230
        names.append(f"p{index:02d}")
        cv2.imwrite(str(folder / f"images/{names[-1]}.png"), picture)
        places = rng.normal((column, row), 2, (per_picture, 2)).clip(0, (width - 1, height - 1))
        image += [index] * per_picture
        x += (places[:, 0] / width).tolist()
        y += (places[:, 1] / height).tolist()
    np.savez(folder / "fixations.npz", names=np.array(names), image=np.array(image), x=np.array(x), y=np.array(y))
    return folder


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Eight photographs whose salient place is plain."""
    return write_photographs(tmp_path_factory.mktemp("gaze") / "squares")
