import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch

from salema.runtime.errors import VideoError
from salema.training.data.batches import Batches, WorkerError, load_batches, workers_watched
from salema.training.data.photographs import Photographs
from salema.training.data.plan import Item, Step

SIZE_HW = (32, 32)
STEP = Step((Item(0, 0, 3, 1), Item(1, 0, 1, 2), Item(2, 0, 0, 3), Item(3, 0, 3, 4)))


def batch_of(photographs, rank=0, processes=1, augment=True):
    return Batches(Photographs(photographs), [STEP], SIZE_HW, rank, processes, augment=augment)[0]


def test_short_clips_are_filled_up_with_frames_that_do_not_count(photographs):
    batch = batch_of(photographs)
    assert batch.frames.shape == (4, 3, *SIZE_HW, 3)
    assert batch.frames.dtype == torch.uint8
    assert batch.weights[1].tolist() == [1, 0, 0]
    assert torch.equal(batch.frames[1, 0], batch.frames[1, 2])
    assert batch.weights[2].tolist() == [0, 0, 0]
    assert not batch.frames[2].any()
    assert batch.seeds.tolist() == [1, 2, 3, 4]


def test_processes_share_a_step_and_make_the_same_clips(photographs):
    whole = batch_of(photographs)
    for rank in range(2):
        own = batch_of(photographs, rank, 2)
        assert torch.equal(own.frames, whole.frames[rank::2])
        assert torch.equal(own.density, whole.density[rank::2])


def test_without_augmentation_pictures_are_as_they_are(photographs):
    batch = batch_of(photographs, augment=False)
    plain = Photographs(photographs).clip(0, 0, 1, SIZE_HW, None)
    assert np.array_equal(batch.frames[0, 0].numpy(), plain.frames[0])


def test_parts_and_workers_change_nothing(photographs):
    batches = Batches(Photographs(photographs), [STEP] * 3, SIZE_HW, 0, 1, augment=True)
    alone, others = (list(load_batches(batches, 1, workers)) for workers in (0, 1))
    assert [batch.number for batch in alone] == [batch.number for batch in others] == [1, 2]
    assert torch.equal(alone[0].frames, others[0].frames)
    part = alone[0].part(slice(1, 3))
    assert torch.equal(part.weights, alone[0].weights[1:3])
    assert part.seeds.tolist() == [2, 3]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_can_not_be_read_is_named(photographs, tmp_path, workers):
    shutil.copytree(photographs, tmp_path, dirs_exist_ok=True)
    (tmp_path / "images/p03.png").write_bytes(b"no picture")
    batches = Batches(Photographs(tmp_path), [STEP], SIZE_HW, 0, 1, augment=False)
    with pytest.raises(VideoError, match=r"^[^\n]*p03\.png: can't be read as an image[^\n]*$"):
        list(load_batches(batches, 0, workers))


class Killing(Photographs):
    """Its reader is killed, as one is that takes too much memory."""

    def clip(self, *arguments):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_told(photographs):
    batches = Batches(Killing(photographs), [STEP], SIZE_HW, 0, 1, augment=False)
    sentence = "--workers 1: one of them was ended.* fewer of them, or 0$"
    with pytest.raises(WorkerError, match=sentence), workers_watched(1):
        list(load_batches(batches, 0, 1))


def test_a_worker_that_is_killed_during_a_step_is_told(photographs):
    """PyTorch's signal handler raises its error in whatever goes on."""
    batches = Batches(Photographs(photographs), [STEP] * 9, SIZE_HW, 0, 1, augment=False)
    with pytest.raises(WorkerError, match="one of them was ended"), workers_watched(1):
        for _ in load_batches(batches, 0, 1):
            for worker in multiprocessing.active_children():
                worker.kill()
            time.sleep(30)


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_worker_outlasts_what_asks_all_processes_for_the_end(photographs, asked):
    batches = Batches(Photographs(photographs), [STEP] * 6, SIZE_HW, 0, 1, augment=False)
    read = 0
    for _ in load_batches(batches, 0, 1):
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, asked)
        read += 1
    assert read == 6
