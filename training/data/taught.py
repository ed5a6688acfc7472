"""A teacher's maps on disk, each moved as the frame that it is of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from salema.benchmarks.maps.ground_truth import FrameTruth, VideoTruth, video_key
from salema.benchmarks.maps.map_files import read_map
from salema.benchmarks.maps.predictions import PredictedMaps
from salema.runtime.errors import MapError
from salema.runtime.wording import counted
from salema.training.data.kept import Kept
from salema.training.data.targets import peaked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salema.training.data.clip import GazeSet, Shot

_read = Kept(read_map, 1 << 28)  # at the network's usual size 5000 maps


class TaughtMaps:
    """Maps of the frames of a set, where `salema-run` writes them for its dataset.

    That of a photograph is `<its name>/0001.png`, as `salema-run *.jpg --maps DIR` writes it.

    Each frame of `gaze` must have a map in the folder.

    Raises:
        MapError: there is no such folder, or a frame has no map.
    """

    def __init__(self, folder: Path, gaze: GazeSet) -> None:
        wanted = {}
        for index in range(len(gaze.names)):
            name, stems = gaze.maps_of(index)
            wanted[video_key(gaze.layout, name)] = VideoTruth(
                name, tuple(FrameTruth(stem, None, None) for stem in stems), stems
            )
        found = PredictedMaps(gaze.layout, folder, wanted).videos
        files = {key: found[key].files if key in found else {} for key in wanted}
        lacking = [
            f"{video.name}, frame {frame.name}"
            for key, video in wanted.items()
            for index, frame in enumerate(video.frames)
            if index not in files[key]
        ]
        if lacking:
            raise MapError(
                f"--teacher {folder}: holds no map of {lacking[0]} ({counted(len(lacking), 'map')} missing in all);"
                " each frame that is trained on needs one: make them with salema-run"
            )
        self._files = tuple(files.values())

    def of(self, shots: Sequence[Shot], size_hw: tuple[int, int]) -> NDArray[np.float32]:
        """Returns the maps of frames, float32 `(T, H, W)`, each from 0 to 1.

        Raises:
            MapError: one can't be read.
        """
        maps = (_read(self._files[shot.video][shot.frame]).astype(np.float32) for shot in shots)
        return np.stack([peaked(shot.view.picture(whole, size_hw)) for shot, whole in zip(shots, maps, strict=True)])
