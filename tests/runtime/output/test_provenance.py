import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from videos import write_clip, write_film

from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.cli.run import main
from salema.runtime.output.provenance import (
    frames_facts,
    model_facts,
    place_beside,
    read_provenance,
    source_facts,
    write_provenance,
)
from salema.runtime.run.dataset import Here, VideoWork, run_dataset
from salema.runtime.run.dataset_layouts import list_videos
from salema.runtime.sources.source import find_sources


def frames_in(folder, count=3, seed=0):
    folder.mkdir(parents=True)
    for index, frame in enumerate(moving_disc(count + seed, 48, 64)[seed:], 1):
        cv2.imwrite(str(folder / f"{index:04d}.png"), frame)


@pytest.fixture
def dataset(cli, model, tmp_path):
    """Three videos, and the command that runs them; gives exit code, JSON and stderr."""
    for seed, name in enumerate("abc"):
        frames_in(tmp_path / "src" / name, seed=seed)

    def run(*options, model=model):
        arguments = ("--dataset", "other", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)
        ran = cli(main, *arguments, "--json", *options)
        return ran.code, json.loads(ran.out), ran.err

    return run


def maps_of(tmp_path, name):
    return tmp_path / "dst/seeded-16_predictions" / name


def test_maps_of_the_same_model_and_frames_are_kept(dataset, tmp_path):
    dataset()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "dst").rglob("*.png")}
    code, summary, err = dataset("--resume")
    assert (code, summary["skipped"], summary["videos"], summary["frames"], summary["again"]) == (0, 3, 0, 0, {})
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "dst").rglob("*.png")} == before
    assert "run again" not in err


def test_resume_does_not_believe_maps_of_another_model(dataset, exported, tmp_path):
    other = exported(alpha=0.3)
    dataset()
    code, summary, err = dataset("--resume", model=other)
    assert (code, summary["skipped"], summary["videos"]) == (0, 0, 3)
    said = "coefficient was 0.1, now 0.3; files sha256 was "
    assert all(why.startswith(said) for why in summary["again"].values()), summary["again"]
    (line,) = [
        line for line in err.splitlines() if line.startswith("note: a has all its maps, but coefficient was 0.1")
    ]
    assert line.endswith("; it is run again, as are others like it")
    assert "note: 3 videos with differently made maps were run again\n" in err
    with load(other) as stream:
        facts = model_facts(stream)
        expected = [stream.step(cv2.imread(str(path))) for path in sorted((tmp_path / "src/a").iterdir())]
    assert read_provenance(maps_of(tmp_path, "a")).model == facts
    for index, saliency in enumerate(expected, 1):
        found = cv2.imread(str(maps_of(tmp_path, f"a/{index:05d}.png")), cv2.IMREAD_UNCHANGED)
        span = saliency.max() - saliency.min()
        assert np.abs(found - (saliency - saliency.min()) / span * 255).max() <= 0.51


def test_resume_does_not_believe_maps_of_a_longer_video_or_of_other_frames(dataset, tmp_path):
    dataset()
    (tmp_path / "src/a/0003.png").unlink()
    shutil.copy(tmp_path / "src/c/0001.png", tmp_path / "src/b/0001.png")
    code, summary, err = dataset("--resume")
    assert (code, summary["skipped"], summary["videos"], set(summary["again"])) == (0, 1, 2, {"a", "b"})
    assert summary["again"]["a"].startswith("images was 3, now 2; sha256 of names and sizes was ")
    assert summary["again"]["b"].startswith("sha256 of names and sizes was ")
    (note,) = summary["notes"]
    assert note == f"{maps_of(tmp_path, 'a')} also holds 1 PNG file that this run did not write"
    assert f"note: {note}\n" in err


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b'{"format": 99}', b"\xff", b"[" * 100_000])
def test_maps_of_which_nothing_tells_are_run_again(dataset, tmp_path, content):
    dataset()
    place = maps_of(tmp_path, "a") / "salema.json"
    place.unlink() if content is None else place.write_bytes(content)
    code, summary, _ = dataset("--resume")
    assert (code, summary["again"]) == (0, {"a": "no salema.json tells what made them"})
    assert read_provenance(maps_of(tmp_path, "a")).complete


def test_a_video_file_with_fewer_frames_than_its_header_says_is_finished(model, tmp_path):
    write_film(tmp_path / "DHF1K/video/001.AVI", moving_disc(4, 48, 64))
    (video,) = list_videos("DHF1K", tmp_path / "DHF1K", tmp_path / "dst", "w")
    video = replace(video, maps=(*video.maps, video.maps[0].with_name("0005.png")))
    assert run_dataset([video], Here(lambda: load(model))).frames == 4
    made = read_provenance(video.maps[0].parent)
    assert (made.frames, made.frames_expected, made.complete) == (4, 4, True)
    assert made.source["name"] == "001.AVI"
    again = run_dataset([video], Here(lambda: load(model)), VideoWork(resume=True))
    assert (again.skipped, again.frames, again.again) == (1, 0, {})
    video.maps[2].unlink()
    assert run_dataset([video], Here(lambda: load(model)), VideoWork(resume=True)).frames == 4


def test_a_video_that_fails_on_the_way_says_so(dataset, tmp_path):
    (tmp_path / "src/b/0003.png").write_bytes(b"no image")
    code, _, _ = dataset()
    made = read_provenance(maps_of(tmp_path, "b"))
    assert (code, made.frames, made.frames_expected, made.complete) == (1, 2, 3, False)
    assert "can't be read as an image" in made.why_incomplete


def test_a_run_that_is_killed_leaves_nothing_to_believe(model, tmp_path):
    """The record of an earlier run is removed before the first of its maps is."""
    frames_in(tmp_path / "src/v", 400)
    command = [sys.executable, "-c", "from salema.runtime.cli.run import main; main()", "--dataset", "other"]
    command += ["--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model]
    folder = maps_of(tmp_path, "v")
    folder.mkdir(parents=True)
    (folder / "salema.json").write_text("{}")
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (folder / "00005.png").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait(60) == -9
    assert not (folder / "salema.json").exists()


def test_every_output_of_a_video_has_its_own(cli, model, small_clip, tmp_path):
    outputs = {"-o": "v.mp4", "--maps": "maps", "--npz": "v.npz", "--csv": "v.csv"}
    options = [text for option, name in outputs.items() for text in (option, tmp_path / name)]
    ran = cli(main, small_clip, "--model", model, *options, "--time-aware", "--max-frames", 5, "--json")
    assert ran.code == 0, ran.err
    assert {path.name for path in tmp_path.iterdir()} == {
        *outputs.values(), *(f"{name}.salema.json" for name in ("v.mp4", "v.npz", "v.csv"))
    }  # fmt: skip
    records = [read_provenance(tmp_path / name) for name in outputs.values()]
    assert records == [records[0]] * 4
    made = records[0]
    assert (made.frames, made.complete, made.why_incomplete) == (5, True, None)
    assert (made.options["time_aware"], made.options["reference_fps"], made.options["max_frames"]) == (True, 30, 5)
    (source,) = find_sources([str(small_clip)])
    assert made.source == source_facts(source)
    assert made.source["bytes"] == small_clip.stat().st_size
    with load(model) as stream:
        assert made.model == model_facts(stream)
        assert made.model["weights_sha256"] == stream.spec.weights_sha256


def test_several_videos_in_one_folder_do_not_clash(cli, model, small_clip, tmp_path):
    (tmp_path / "src").mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(small_clip, tmp_path / "src" / name)
    write_clip(tmp_path / "src/b.mp4", moving_disc(4, 64, 96))
    out = tmp_path / "out"
    places = ("-o", out, "--csv", out, "--npz", out, "--maps", out)
    assert cli(main, tmp_path / "src", "--model", model, *places).code == 0
    for name, frames in (("a", 12), ("b", 4)):
        for output in (f"{name}_saliency.mp4", f"{name}.csv", f"{name}.npz", name):
            made = read_provenance(out / output)
            assert (made.source["name"], made.frames) == (f"{name}.mp4", frames)


def test_an_interrupted_run_says_so(model, tmp_path):
    clip = write_clip(tmp_path / "long.mp4", moving_disc(60, 64, 96))
    command = [sys.executable, "-c", "from salema.runtime.cli.run import main; main()", clip, "--loop", 0]
    command += ["--model", model, "--no-video", "--maps", tmp_path / "maps", "--csv", tmp_path / "t.csv"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "maps/0005.png").exists() and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    assert process.wait(60) == 130
    for output in ("maps", "t.csv"):
        made = read_provenance(tmp_path / output)
        assert (made.complete, made.why_incomplete) == (False, "interrupted")
        assert made.frames == len(list((tmp_path / "maps").glob("*.png")))


def test_outputs_stay_if_the_provenance_cannot_be_written_and_a_note_says_so(cli, model, small_clip, tmp_path):
    (tmp_path / "t.csv.salema.json").mkdir()
    ran = cli(main, small_clip, "--model", model, "--no-video", "--csv", tmp_path / "t.csv")
    assert (ran.code, (tmp_path / "t.csv").is_file()) == (0, True)
    assert f"note: the record of what made {tmp_path / 't.csv'} could not be written: " in ran.err


def test_a_large_video_is_told_by_pieces_of_it(tmp_path):
    path = tmp_path / "v.mp4"
    with path.open("wb") as file:
        file.truncate(200 << 20)
    (source,) = find_sources([str(path)])
    start = time.process_time()
    empty = source_facts(source)
    assert time.process_time() - start < 1
    for place in (0, 100 << 20, (200 << 20) - 1):
        with path.open("r+b") as file:
            step = ((200 << 20) - (1 << 20)) / 63
            file.seek(round(round(min(place, 199 << 20) / step) * step))
            file.write(b"x")
        assert source_facts(source) != empty
        with path.open("r+b") as file:
            file.truncate(0)
            file.truncate(200 << 20)
    assert source_facts(source) == empty
    os.truncate(path, (200 << 20) - 1)
    assert source_facts(source) != empty


def test_frames_are_told_by_their_names_and_sizes(tmp_path):
    frames_in(tmp_path / "v")
    paths = sorted((tmp_path / "v").iterdir())
    facts = frames_facts(paths)
    assert facts["images"] == 3
    os.utime(paths[0], (1, 1))
    assert frames_facts(paths) == facts
    assert frames_facts(paths[:2]) != facts
    paths[0].write_bytes(b"shorter")
    assert frames_facts(paths) != facts


def test_a_record_comes_back_as_it_was(model, tmp_path, cli, small_clip):
    cli(main, small_clip, "--model", model, "--backend", "onnxruntime", "--no-video", "--csv", tmp_path / "t.csv")
    made = read_provenance(tmp_path / "t.csv")
    assert made.title.startswith("seeded:16, SalEMA30 fp32, coefficient 0.1, ONNX Runtime ")
    assert made.differs_from(made) == ""
    write_provenance(tmp_path, replace(made, source={"kind": "url", "name": "rtsp://\udcff"}))
    assert place_beside(tmp_path) == tmp_path / "salema.json"
    assert read_provenance(tmp_path).source["name"] == "rtsp://\udcff"
    unfinished = replace(made, complete=False, why_incomplete="interrupted", salema_version="0.0.1")
    assert unfinished.differs_from(made) == f"it was not finished; salema was 0.0.1, now {made.salema_version}"


def test_the_hash_is_that_of_the_model_that_was_named(model, exported, tmp_path):
    (tmp_path / "model.onnx").write_bytes((model / "model.onnx").read_bytes())
    (tmp_path / "nano.onnx").write_bytes((exported(precision="fp16") / "model.onnx").read_bytes())
    hashes = []
    for path in (tmp_path, tmp_path / "nano.onnx", tmp_path / "model.onnx"):
        with load(path, backend="onnxruntime", device="cpu") as stream:
            hashes.append(model_facts(stream)["files_sha256"])
    assert hashes[0] == hashes[2] != hashes[1]
