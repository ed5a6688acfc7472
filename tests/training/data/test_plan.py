import pytest

from salema.training.data.plan import Item, plan_epoch
from salema.training.recipes import Recipe, choose_recipe


class Lengths:
    """Videos of which only the lengths are known."""

    name, are_photographs = "lengths", False

    def __init__(self, *lengths):
        self.lengths, self.names = lengths, tuple(map(str, range(len(lengths))))


def plan(gaze, name, epoch=1, **choices):
    return plan_epoch(gaze, choose_recipe(name, Recipe(**choices), "other"), 7, epoch)


def test_the_papers_order_plays_each_video_to_its_end():
    steps = plan(Lengths(25, 10, 1), "paper")
    assert [(step.items[0].video, step.items[0].start, step.items[0].frames) for step in steps] == [
        (0, 0, 10),
        (0, 10, 10),
        (0, 20, 5),
        (1, 0, 10),
        (2, 0, 1),
    ]
    assert [step.goes_on for step in steps] == [False, True, True, False, False]


def test_videos_side_by_side_wait_for_the_longest():
    steps = plan(Lengths(25, 10, 4), "paper", batch=2)
    assert [[item.frames for item in step.items] for step in steps] == [[10, 10], [10, 0], [5, 0], [4, 0]]
    assert [step.goes_on for step in steps] == [False, True, True, False]


def test_shuffled_clips_take_each_video_once_and_fill_the_last_step():
    steps = plan(Lengths(*[20] * 10), "default", batch=4, clip_frames=8)
    assert [len(step.items) for step in steps] == [4, 4, 4]
    videos = [item.video for step in steps for item in step.items]
    assert sorted(videos[:10]) == list(range(10))
    assert videos[10:] == videos[:2]
    assert all(0 <= item.start <= 12 for step in steps for item in step.items)
    assert len({item.start for step in steps for item in step.items}) > 3
    assert not any(step.goes_on for step in steps)


def test_a_short_video_is_one_short_clip():
    (step,) = plan(Lengths(3), "default", batch=1, clip_frames=8)
    assert (step.items[0].start, step.items[0].frames) == (0, 3)


def test_a_plan_depends_on_seed_and_epoch_alone():
    gaze = Lengths(*[20] * 10)
    assert plan(gaze, "default") == plan(gaze, "default")
    assert plan(gaze, "default") != plan(gaze, "default", epoch=2)
    assert isinstance(plan(gaze, "default")[0].items[0], Item)


@pytest.mark.parametrize("name", ["paper", "default"])
def test_photographs_are_clips_of_any_length(name):
    gaze = Lengths(1, 1, 1)
    gaze.are_photographs = True
    steps = plan(gaze, name, batch=1, clip_frames=4)
    assert [step.items[0].frames for step in steps] == [4, 4, 4]
    assert len({step.items[0].video for step in steps}) == 3
