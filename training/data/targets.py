"""What a network is to say of a frame: fixations counted on its grid, and their density."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

BLUR = 0.03  # of the picture's width: 24 pixels at 800, a degree of the visual field for OSIE's viewers


def count_fixations(points: NDArray[np.float32], size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Counts points `(n, 2)`, x and y as fractions of the picture, on a grid `(H, W)`; those outside are left out."""
    counts = np.zeros(size_hw, np.float32)
    columns, rows = np.floor(points * (size_hw[1], size_hw[0])).astype(int).T
    inside = (columns >= 0) & (columns < size_hw[1]) & (rows >= 0) & (rows < size_hw[0])
    np.add.at(counts, (rows[inside], columns[inside]), 1)
    return counts


def blurred(
    counts: NDArray[np.float32], blur: float, picture_hw: tuple[float, float] | None = None
) -> NDArray[np.float32]:
    """Returns the density `(H, W)` of counted fixations, scaled to a greatest of 1.

    Args:
        counts: `(H, W)`.
        blur: the deviation, as a share of the width.
        picture_hw: rows and columns of the picture, or the part of one, that the grid was stretched from, on which the
            blur is as high as it is wide; None for a grid of the picture's own shape.
    """
    height, width = picture_hw or counts.shape
    stretch = (width / height) / (counts.shape[1] / counts.shape[0])
    across = blur * counts.shape[1]
    return peaked(cv2.GaussianBlur(counts, (0, 0), across, sigmaY=across * stretch, borderType=cv2.BORDER_CONSTANT))


def peaked(density: NDArray[np.generic]) -> NDArray[np.float32]:
    """Scales a density `(H, W)` to 0 to 1, as the published code does; a flat one says nothing, and gives zeros."""
    values = np.asarray(density, np.float32)
    low, high = float(values.min()), float(values.max())
    return (values - np.float32(low)) / np.float32(high - low) if high > low else np.zeros_like(values)
