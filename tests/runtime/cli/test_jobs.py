"""Several videos at a time, each with a network of its own."""

import pytest
from frame_folders import numbered, write_frames

from salema.runtime import cpu, load
from salema.runtime.cli import opening as cli_opening
from salema.runtime.cli.run import main


@pytest.mark.parametrize(
    ("options", "threads"),
    [((), None), (("--jobs", 1), None), (("--jobs", 3), 2), (("--jobs", 9), 1), (("--jobs", 3, "--threads", 4), 4)],
)
@pytest.mark.parametrize("of_dataset", [True, False])
def test_jobs_share_the_cores(cli, model, tmp_path, monkeypatch, options, threads, of_dataset):
    names, opened = "abcdefghi", []
    for name in names:
        write_frames(tmp_path / "src" / name, numbered(1))
    monkeypatch.setattr(cpu, "usable_cores", lambda: 6)

    def noted(*arguments, **how):
        opened.append(how.pop("threads"))
        return load(*arguments, **how, threads=1)

    monkeypatch.setattr(cli_opening, "load", noted)
    whole = ("--dataset", "other", "--src", tmp_path / "src", "--dst", tmp_path / "dst")
    sources = (*(tmp_path / "src" / name for name in names), "--no-video", "--maps", tmp_path / "maps")
    options += ("--model", model, "--backend", "onnxruntime")
    ran = cli(main, *(whole if of_dataset else sources), *options)
    assert ran.code == 0, ran.err
    assert set(opened) == {threads}


def test_no_more_jobs_share_the_cores_than_there_are_sources(cli, model, tmp_path, monkeypatch):
    write_frames(tmp_path / "a", numbered(1))
    write_frames(tmp_path / "b", numbered(1))
    monkeypatch.setattr(cpu, "usable_cores", lambda: 6)
    options = ("--no-video", "--maps", tmp_path / "maps", "--model", model, "--backend", "onnxruntime", "--jobs", 6)
    ran = cli(main, tmp_path / "a", tmp_path / "b", *options)
    assert "3 threads" in ran.err
