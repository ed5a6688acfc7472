import io
import os
import zipfile

import numpy as np
import pytest
import torch
from limits import run_in_little_memory

from salema.export.weights.checkpoints import load_checkpoint
from salema.runtime.errors import CheckpointError

IMPORTS = """
from salema.export.weights.checkpoints import load_checkpoint
from salema.runtime.errors import CheckpointError
"""
READ = """
try:
    load_checkpoint(str(path))
except CheckpointError as error:
    print(error)
"""


def header(shape, dtype="<f4"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def write_npz(path, entries):
    """Entries of `(header, megabytes of zeros)`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, (head, mib) in entries.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(head)
                for _ in range(mib):
                    member.write(bytes(1 << 20))
    return path


def test_a_bomb_in_an_npz_is_refused_by_what_it_declares(tmp_path):
    mib = 1100
    bomb = write_npz(tmp_path / "a.npz", {"arr_0": (header((mib << 18,)), mib)})
    assert bomb.stat().st_size < 6_000_000
    told = f"{bomb}: unfolds to 1.2 GB, and 1.1 GB are the most that is read; save the state_dict alone\n"
    assert run_in_little_memory(IMPORTS, READ, bomb) == told


def test_an_array_that_claims_more_than_it_has_is_refused(tmp_path):
    liar = write_npz(tmp_path / "a.npz", {f"arr_{index}": (header((1 << 28,)), 0) for index in range(54)})
    told = f"{liar}: arr_0.npy claims to be ({1 << 28},), and is less; get the file again\n"
    assert run_in_little_memory(IMPORTS, READ, liar) == told


def test_a_bomb_in_a_checkpoint_of_pytorch(tmp_path):
    torch.save({"salgan.0.weight": torch.ones(3)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "a.pt", "w", 8, compresslevel=1) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
        with bomb.open("archive/data/9", "w", force_zip64=True) as member:
            for _ in range(1100):
                member.write(bytes(1 << 20))
    with pytest.raises(CheckpointError, match="a.pt: unfolds to 1.2 GB, and 1.1 GB are the most that is read"):
        load_checkpoint(str(tmp_path / "a.pt"))


def test_folders_and_files_that_are_too_big_are_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo.pt")
    with (tmp_path / "big.pt").open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(CheckpointError, match="fifo.pt: not a file; give a checkpoint"):
        load_checkpoint(str(tmp_path / "fifo.pt"))
    with pytest.raises(CheckpointError, match="big.pt: has 5.4 GB, and 1.1 GB are the most that is read"):
        load_checkpoint(str(tmp_path / "big.pt"))
