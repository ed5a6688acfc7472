import pytest
import torch
from int8_model import SIZE_HW, WEIGHTS
from videos import write_clip

from salema.export.exporter import export_model
from salema.export.int8 import gate, to_int8
from salema.export.options import ExportOptions
from salema.export.weights.seeded import moving_disc, seeded_state_dict

SHORT = 60  # steps


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A clip to calibrate INT8 on."""
    return write_clip(tmp_path_factory.mktemp("calib") / "disc.mp4", moving_disc(48, *SIZE_HW))


@pytest.fixture(scope="session")
def narrow():
    """The weights of each kind with a sixteenth of the channels; nobody changes them."""
    return {
        kind: {key: torch.from_numpy(array) for key, array in seeded_state_dict(kind, 16).items()}
        for kind in ("salema", "salclstm30", "salclstm56")
    }


@pytest.fixture(autouse=True)
def _short_gate(monkeypatch):
    """INT8 is compared with float over a fifth of the steps."""
    monkeypatch.setattr(to_int8, "STEPS", SHORT)


@pytest.fixture
def whole_gate(monkeypatch):
    """INT8 is compared with float over all steps."""
    monkeypatch.setattr(to_int8, "STEPS", gate.STEPS)


@pytest.fixture(scope="session")
def int8(clip, once):
    """Exports INT8, once for each set of options; gives the result. For TensorRT it is compared over all steps."""

    def export(**options):
        plain = {"imgsz_hw": SIZE_HW, "precision": "int8", "calib": str(clip), "calib_frames": 24}

        def make(folder):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(to_int8, "STEPS", gate.STEPS if options == {"for_": "tensorrt"} else SHORT)
                return export_model(WEIGHTS, folder, ExportOptions(**{**plain, **options}), lambda _: None)

        return once(make, "int8", *sorted(options.items()))

    return export
