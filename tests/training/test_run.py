"""Whole runs, on small networks and a few photographs whose salient place is plain."""

import json
import threading
from fractions import Fraction

import cv2
import pytest
import torch
from synthetic import write_dataset

from salema.export.exporter import export_model
from salema.export.options import ExportOptions
from salema.export.weights.checkpoints import load_checkpoint
from salema.training.data.photographs import Photographs
from salema.training.initial import choose_start, drawn
from salema.training.log import read_log
from salema.training.network import ClipNetwork
from salema.training.options import DataOptions, NetworkOptions, RunOptions
from salema.training.recipes import Recipe
from salema.training.run import Request, train
from salema.training.trainer import TrainingError
from salema.training.validation import run_video

SIZE_HW = (48, 64)
PLAIN = {"half_size": 0.0, "augment": False, "average": 0.0, "warmup": 0}


class NoBar:
    def begun(self, epoch, steps, done):
        pass

    def advance(self, loss):
        pass


def run(photographs, folder, said=None, recipe="default", network=None, bar=None, stop=None, data=None, **choices):
    """Trains on the photographs; `run` options and the recipe's choices are told apart by their names."""
    options = {"validate_every": 100}  # at the last epoch alone: the curves take longer than the rest
    options |= {
        name: choices.pop(name)
        for name in ("resume", "seed", "accumulate", "validate_every", "until")
        if name in choices
    }
    request = Request(
        recipe,
        Recipe(**{**PLAIN, "clip_frames": 1, "batch": 8, **choices}),
        data or DataOptions("photographs", photographs, val=str(photographs)),
        NetworkOptions(**{"width": "1/8", "imgsz_hw": SIZE_HW, **(network or {})}),
        RunOptions(folder, device="cpu", **options),
    )
    say = (said if said is not None else []).append
    return train(request, say, bar or NoBar(), stop or threading.Event())


def steps(folder):
    return [record for record in read_log(folder) if "loss" in record]


def scores(folder):
    return [record["scores"] for record in read_log(folder) if "scores" in record]


@pytest.fixture(scope="module")
def learned(photographs, tmp_path_factory):
    """A run that learns eight photographs by heart."""
    folder = tmp_path_factory.mktemp("runs") / "by-heart"
    said = []
    run(photographs, folder, said, epochs=60, lr=2e-3, validate_every=30)
    return folder, said


def test_eight_photographs_are_learned_by_heart(learned):
    folder, _ = learned
    losses = [record["loss"] for record in steps(folder)]
    assert len(losses) == 60
    assert losses[-1] < 0.4 * losses[0]
    assert scores(folder)[-1]["nss"] > 3
    assert scores(folder)[-1]["auc_judd"] > 0.97


def test_a_run_says_what_it_does_and_leaves_its_card(learned):
    folder, said = learned
    assert said[0] == "data          squares: 8 to train on, 8 to validate on"
    assert "coefficient   0.5 of the new frame, learned from here on" in said
    assert said[-1].startswith("epoch 60      nss ")
    card = (folder / "README.md").read_text()
    assert card.startswith("# SalEMA30, trained on squares")
    assert "| 60 | 48x64 | " in card
    assert "- Run: precision fp32 on cpu, 1 process, each step in 1 part, accelerate " in card
    assert "| lr | 0.002 |" in card
    assert {"best.pt", "last.pt", "curves.png", "log.jsonl", "settings.json", "state.pt"} <= {
        path.name for path in folder.iterdir()
    }
    assert len(list((folder / "samples").iterdir())) == 2


def test_a_checkpoint_exports_with_its_architecture_and_coefficient(learned, tmp_path):
    folder, _ = learned
    result = export_model(str(folder / "last.pt"), tmp_path, ExportOptions(imgsz_hw=SIZE_HW), lambda _: None)
    assert result.spec.architecture == "SalEMA30"
    assert result.architecture_source == "the file's metadata"
    assert result.spec.coefficient == pytest.approx(steps(folder)[-1]["coefficient"], abs=1e-3)
    assert result.spec.trained


def test_a_run_is_the_same_again(photographs, tmp_path):
    _, whole = run(photographs, tmp_path / "whole", epochs=3), read_log(tmp_path / "whole")
    run(photographs, tmp_path / "again", epochs=3)
    assert read_log(tmp_path / "again") == whole


def test_a_run_that_ends_early_keeps_the_whole_ones_schedule(photographs, tmp_path):
    run(photographs, tmp_path / "whole", epochs=3)
    run(photographs, tmp_path / "part", epochs=3, until=2)
    assert steps(tmp_path / "part") == steps(tmp_path / "whole")[:2]
    run(photographs, tmp_path / "part", epochs=3, resume=True)
    assert steps(tmp_path / "part") == steps(tmp_path / "whole")


def test_parts_of_a_step_add_up_to_it(photographs, tmp_path):
    run(photographs, tmp_path / "whole", epochs=2)
    run(photographs, tmp_path / "parts", epochs=2, accumulate=3)
    pairs = zip(steps(tmp_path / "whole"), steps(tmp_path / "parts"), strict=True)
    assert all(one["loss"] == pytest.approx(other["loss"], rel=1e-4) for one, other in pairs)


def change_state(folder, change):
    state = torch.load(folder / "state.pt", weights_only=True)
    change(state)
    torch.save(state, folder / "state.pt")


def lose_a_number(state):
    state["network"]["step.salgan.60.bias"].fill_(float("nan"))


def grow(state):
    """Keeps the maps as they are, and makes some gradients too large for a float's square."""
    network = state["network"]
    network["step.salgan.58.weight"] *= 1e25
    network["step.salgan.58.bias"] *= 1e25
    network["step.salgan.60.weight"] *= 1e-25


@pytest.mark.parametrize(
    ("change", "what"), [(lose_a_number, "the loss is nan"), (grow, "the norm of the gradients is (inf|nan)")]
)
def test_a_step_without_numbers_names_its_clips_and_keeps_the_checkpoints(photographs, tmp_path, change, what):
    folder = tmp_path / "run"
    run(photographs, folder, epochs=3, until=1)
    before = [(folder / name).read_bytes() for name in ("best.pt", "last.pt")]
    change_state(folder, change)
    sentence = rf"epoch 2: {what} in step 1 on p0\d from frame 1, .*--init \S*best.pt and a lower --lr$"
    with pytest.raises(TrainingError, match=sentence):
        run(photographs, folder, epochs=3, resume=True)
    assert [(folder / name).read_bytes() for name in ("best.pt", "last.pt")] == before


class Stopping(NoBar):
    """Asks for the end while the last step of an epoch is shown, so that it is met in the validation."""

    def __init__(self):
        self.stop = threading.Event()

    def advance(self, loss):
        self.stop.set()


def test_a_run_that_is_stopped_in_a_validation_loses_no_step(photographs, tmp_path):
    run(photographs, tmp_path / "whole", epochs=1)
    bar = Stopping()
    with pytest.raises(KeyboardInterrupt):
        run(photographs, tmp_path / "run", epochs=1, bar=bar, stop=bar.stop)
    assert len(read_log(tmp_path / "run")) == 1
    run(photographs, tmp_path / "run", epochs=1, resume=True)
    assert read_log(tmp_path / "run") == read_log(tmp_path / "whole")


def test_a_network_without_numbers_is_no_checkpoint(photographs, tmp_path):
    with pytest.raises(
        TrainingError, match=r"epoch 1: p00: .* NaN or infinity for it; begin another run, with a lower"
    ):
        run(photographs, tmp_path / "run", epochs=1, lr=1e12)
    bar = Stopping()
    with pytest.raises(KeyboardInterrupt):
        run(photographs, tmp_path / "other", epochs=1, bar=bar, stop=bar.stop)
    change_state(tmp_path / "other", lose_a_number)
    with pytest.raises(TrainingError, match=r"epoch 1: of salgan\.60\.bias some weights are no numbers"):
        run(photographs, tmp_path / "other", epochs=1, resume=True)
    assert not list(tmp_path.glob("*/last.pt"))


def test_a_step_at_full_size_is_tried_before_those_at_half_size(photographs, tmp_path, monkeypatch):
    sizes, forward = [], ClipNetwork.forward

    def seen(network, frames, *others):
        if network.training:
            sizes.append(tuple(frames.shape[2:4]))
        return forward(network, frames, *others)

    monkeypatch.setattr(ClipNetwork, "forward", seen)
    run(photographs, tmp_path / "run", epochs=2, half_size=0.5, network={"imgsz_hw": (64, 64)})
    assert sizes == [(64, 64), (32, 32), (64, 64)]


def test_the_best_epoch_is_one_at_full_size(photographs, tmp_path):
    choices = {"epochs": 2, "half_size": 0.5, "network": {"imgsz_hw": (64, 64)}}
    run(photographs, tmp_path / "run", until=1, **choices)
    change_state(tmp_path / "run", lambda state: state["progress"].update(best=99.0))
    run(photographs, tmp_path / "run", resume=True, **choices)
    assert torch.load(tmp_path / "run/best.pt", weights_only=True)["epoch"] == 2
    assert [record["size"] for record in read_log(tmp_path / "run") if "scores" in record] == [[32, 32], [64, 64]]


def test_a_learned_alpha_comes_to_the_one_that_made_the_maps(photographs, tmp_path):
    """The teacher is the same network with another alpha: only memory tells the two apart."""
    small = {"imgsz_hw": (32, 32)}
    run(photographs, tmp_path / "teacher", epochs=1, lr=1e-9, network={"alpha": "0.2", **small})
    wise = {"teacher": str(tmp_path / "teacher/last.pt"), "teacher_share": 1.0, "alpha": "learned", **small}
    choices = {"lr": 1e-9, "alpha_lr": 0.09, "clip_frames": 5, "augment": True, "validate_every": 25}
    run(photographs, tmp_path / "run", epochs=25, network=wise, kld=0.0, nss=0.0, bce=0.0, batch=4, **choices)
    coefficients = [record["coefficient"] for record in steps(tmp_path / "run")]
    assert coefficients[0] == pytest.approx(0.48, abs=0.01)  # a step below a half
    assert coefficients[-1] == pytest.approx(0.2, abs=0.03)


def test_a_student_learns_its_teachers_maps(photographs, learned, tmp_path):
    wise = {"teacher": str(learned[0] / "last.pt"), "teacher_share": 1.0}
    said = []
    run(photographs, tmp_path / "run", said, epochs=30, lr=2e-3, seed=5, network=wise)
    teacher = load_checkpoint(str(learned[0] / "last.pt"))
    share = torch.tensor(teacher.learned_alpha).sigmoid().item()
    assert f"teacher       SalEMA30, {share:.4g} of the new frame, SHA-256 {teacher.sha256}" in said
    assert f"| teacher_sha256 | {teacher.sha256} |" in (tmp_path / "run/README.md").read_text()
    losses = [record["loss"] for record in steps(tmp_path / "run")]
    assert losses[-1] < 0.5 * losses[0]
    assert scores(tmp_path / "run")[-1]["nss"] > 2


def test_maps_on_disk_teach_what_the_network_that_made_them_does(photographs, learned, tmp_path):
    start = choose_start(str(learned[0] / "last.pt"), "auto", Fraction(1), 0, lambda _: None)
    network = ClipNetwork(start.architecture, start.weights, start.alpha, 1.0, 0.0)
    gaze = Photographs(photographs)
    for index, name in enumerate(gaze.names):
        (tmp_path / "maps" / name).mkdir(parents=True)
        ((_, grey),) = run_video(network, gaze, SIZE_HW, index)
        cv2.imwrite(str(tmp_path / f"maps/{name}/0001.png"), grey)
    for name, teacher in (("network", learned[0] / "last.pt"), ("disk", tmp_path / "maps")):
        wise = {"teacher": str(teacher), "teacher_share": 0.7}
        run(photographs, tmp_path / name, epochs=2, network=wise)
    pairs = list(zip(steps(tmp_path / "network"), steps(tmp_path / "disk"), strict=True))
    assert all(one["loss"] == pytest.approx(other["loss"], rel=1e-2) for one, other in pairs)
    run(photographs, tmp_path / "alone", epochs=2)
    assert steps(tmp_path / "alone")[0]["loss"] != pytest.approx(pairs[0][1]["loss"], rel=2e-2)


@pytest.mark.parametrize("arch", ["salgan", "salema7r", "salema7+54", "salclstm30", "salclstm56", "salclstm30r"])
def test_every_architecture_trains_and_exports(photographs, tmp_path, arch):
    run(photographs, tmp_path / "run", epochs=1, clip_frames=2, network={"arch": arch, "imgsz_hw": (32, 32)})
    first, last = (load_checkpoint(str(tmp_path / f"run/{name}.pt")) for name in ("best", "last"))
    assert last.hint.architecture.name.lower() == arch
    assert torch.equal(first.weights["salgan.0.weight"], last.weights["salgan.0.weight"])
    settings = json.loads((tmp_path / "run/settings.json").read_text())
    assert settings["arch"] == arch


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gaze")
    write_dataset(folder, "other", videos=2, frames=5, size_hw=(32, 32))
    return DataOptions("other", folder, val="2:1")


def test_the_papers_recipe_trains_whole_videos(videos, tmp_path):
    said = []
    small = {"imgsz_hw": (32, 32)}
    run(None, tmp_path / "run", said, "paper", small, data=videos, epochs=1, batch=1, clip_frames=2)
    assert any(line.startswith("note: --recipe paper goes on from trained weights, such as --init") for line in said)
    records = steps(tmp_path / "run")
    assert len(records) == 3  # clips of 2, 2 and 1 frames
    assert set(records[0]) >= {"loss", "bce", "coefficient"}
    assert "kld" not in records[0]
    assert records[0]["loss"] == pytest.approx(records[0]["bce"])


def test_a_thawing_convlstm_trains_its_gates_first(videos, tmp_path):
    network = {"imgsz_hw": (32, 32), "arch": "salclstm30"}
    run(None, tmp_path / "run", None, "paper", network, data=videos, epochs=2, batch=1, clip_frames=2, lr=1e-3, until=1)
    begun = drawn("salclstm30", Fraction(1, 8), 0)
    for epoch, layers in ((1, set()), (2, {"58", "60"})):
        after = load_checkpoint(str(tmp_path / "run/last.pt")).weights
        moved = {key for key, value in after.items() if not torch.equal(value, begun[key])}
        assert "Gates.weight" in moved
        assert {key.split(".")[1] for key in moved if key.startswith("salgan.")} == layers
        if epoch == 1:
            again = {"epochs": 2, "batch": 1, "clip_frames": 2, "lr": 1e-3, "resume": True}
            run(None, tmp_path / "run", None, "paper", network, data=videos, **again)
