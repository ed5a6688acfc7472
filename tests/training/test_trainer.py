"""Steps on videos of which not all is known."""

import shutil

from synthetic import write_dataset

from salema.training.cli import main
from salema.training.log import read_log

SMALL = ("--width", "1/8", "--imgsz", "32", "32", "--device", "cpu", "--epochs", "1", "--clip-frames", "2")


def test_a_step_without_ground_truth_moves_nothing(cli, tmp_path):
    """Not even by the momentum of the steps before."""
    write_dataset(tmp_path / "data", "other", videos=2, frames=6, size_hw=(32, 32))
    for kind in ("maps", "fixation"):
        for number in (3, 4):
            (tmp_path / f"data/clip 1/{kind}/000{number}.png").unlink()
        shutil.rmtree(tmp_path / f"data/clip 2/{kind}")
    ran = cli(
        main,
        *("--dataset", "other", "--src", tmp_path / "data", "--val", "none", "-o", tmp_path / "run"),
        *("--recipe", "paper", *SMALL),
    )
    assert ran.code == 0, ran.err
    first, second, third = (record["coefficient"] for record in read_log(tmp_path / "run"))
    assert first == second != third
