import pytest
from int8_model import SIZE_HW, WEIGHTS
from videos import write_clip

from salema.export.exporter import Options, export_model
from salema.export.weights.seeded import moving_disc


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A clip to calibrate INT8 on."""
    return write_clip(tmp_path_factory.mktemp("calib") / "disc.mp4", moving_disc(48, *SIZE_HW))


@pytest.fixture(scope="session")
def int8(clip, tmp_path_factory):
    """Exports INT8, once for each set of options; gives the result."""
    done = {}

    def export(**options):
        key = tuple(sorted(options.items()))
        if key not in done:
            options = {"imgsz_hw": SIZE_HW, "precision": "int8", "calib": str(clip), "calib_frames": 24, **options}
            done[key] = export_model(Options(WEIGHTS, tmp_path_factory.mktemp("int8"), **options), lambda _: None)
        return done[key]

    return export
