import csv
import errno
import fcntl
import os
import random
import re
import subprocess
import time

import av
import numpy as np
import pytest
from limits import script, small_files
from videos import probe, write_clip

from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.cli.run import main
from salema.runtime.files.whole_files import written_aside
from salema.runtime.output.recovery import recover_beside, recover_folder, remove_unfinished
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.source import find_sources
from salema.runtime.video.video_reader import VideoReader
from salema.runtime.video.video_writer import VideoWriter

OUTPUTS = ["-o", "o.mp4", "--npz", "o.npz", "--csv", "o.csv", "--maps", "maps"]


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """Forty seconds with sound."""
    frames = np.tile(moving_disc(50, 64, 96), (20, 1, 1, 1))
    return write_clip(tmp_path_factory.mktemp("clips") / "long.mp4", frames, audio="aac")


@pytest.fixture(params=["mp4", "ts"])
def any_clip(request, long_clip):
    """The same in a container whose AAC has its parameters in every packet, too."""
    if request.param == "mp4":
        return long_clip
    with av.open(str(long_clip)) as source, av.open(str(long_clip.with_suffix(".ts")), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    return long_clip.with_suffix(".ts")


def kill_after(command, folder, frames):
    """Starts a run, kills it once it has written a number of maps, and returns how many there are then."""
    process = subprocess.Popen(
        [script("salema-run"), *map(str, command)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not (folder / f"maps/{frames:04d}.png").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.communicate()
    return sum(not path.name.startswith(".") for path in (folder / "maps").iterdir())


def check_recovered(folder, count, *, lag_frames=50):
    """Compares the recovered files with the maps on disk and with each other: at most two seconds are lost."""
    images = probe(folder / "o.recovered-1.mp4")
    assert count - lag_frames <= len(images["images"]) <= count + 1
    assert images["times"][0] < 0.03  # MPEG-TS has AAC's lead-in before it
    np.testing.assert_allclose(np.diff(images["times"]), 1 / 25, atol=1e-4)
    assert images["sound_s"][0] == pytest.approx(images["duration_s"], abs=1)
    with av.open(str(folder / "o.recovered-1.mp4")) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) > 44100 * (images["duration_s"] - 1)
    with np.load(folder / "o.recovered-1.npz") as archive:
        maps, times_s = archive["maps"], archive["times_s"]
    assert count - 1 <= len(maps) == len(times_s) <= count + 1
    np.testing.assert_allclose(times_s - times_s[0], np.arange(len(maps)) / 25, atol=1e-4)
    rows = list(csv.DictReader((folder / "o.recovered-1.csv").read_text().splitlines()))
    assert count - 1 <= len(rows) <= count + 1
    assert [int(row["frame"]) for row in rows] == list(range(1, len(rows) + 1))
    np.testing.assert_allclose([float(row["peak"]) for row in rows], maps[: len(rows)].max((1, 2)), rtol=1e-5)
    return maps


def test_a_killed_run_loses_next_to_nothing(model, any_clip, tmp_path):
    """At five moments in all."""
    moments = random.Random(0)
    for index in range(4 if any_clip.suffix == ".mp4" else 1):
        folder = tmp_path / str(index)
        folder.mkdir()
        command = [any_clip, "--model", model, *OUTPUTS, "--opacity", 0]
        count = kill_after(command, folder, moments.randint(10, 300))
        assert not (folder / "o.mp4").exists()
        notes = recover_folder(folder)
        assert [note.partition(": an earlier run was killed")[0] for note in notes][:3] == [
            str(folder / name) for name in ("o.mp4", "o.npz", "o.csv")
        ]
        maps = check_recovered(folder, count)
        kept = {path.name for path in folder.iterdir()}
        assert kept == {"maps", *(f"o.recovered-1.{kind}" for kind in ("mp4", "npz", "csv"))}
        assert not [path for path in (folder / "maps").iterdir() if path.name.startswith(".")]
    (source,) = find_sources([str(any_clip)])
    with load(model) as stream, Playback(source) as playback:
        plain = [stream.step(frame.image_bgr) for frame, _ in zip(playback, range(len(maps)), strict=False)]
    np.testing.assert_array_equal(maps, plain)


def test_the_next_run_of_the_same_names_recovers_first(cli, model, small_clip, long_clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    count = kill_after([long_clip, "--model", model, *OUTPUTS], tmp_path, 100)
    (tmp_path / "maps/.0101.1.0.partial.png").write_bytes(b"half")
    (tmp_path / ".other.1.0.partial.mp4").write_bytes(b"not of this run")
    ran = cli(main, small_clip, "--model", model, *OUTPUTS)
    assert ran.code == 0, ran.err
    assert "o.mp4: an earlier run was killed; what it had written, " in ran.err
    assert f"maps, is kept in {tmp_path / 'o.recovered-1.npz'}" in ran.err
    # One or two more if it was killed while it wrote maps.
    assert re.search(r"maps: an earlier run was killed; \d unfinished files? removed", ran.err)
    check_recovered(tmp_path, count)
    assert len(probe(tmp_path / "o.mp4")["images"]) == 12
    assert len(np.load(tmp_path / "o.npz")["maps"]) == 12
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".other.1.0.partial.mp4"]


def test_a_partial_file_that_another_run_writes_is_left_alone(tmp_path):
    """By this process, or by another one, which in a container may have the same number."""
    with written_aside(tmp_path / "a.csv") as aside:
        aside.write_bytes(b"frame\n1\n")
        assert recover_beside([tmp_path / "a.csv"]) == recover_folder(tmp_path) == []
    (tmp_path / f".b.{os.getpid()}.99.partial.csv").write_bytes(b"frame\n1\n")
    assert len(recover_beside([tmp_path / "b.csv"])) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.recovered-1.csv"]


def test_half_files_that_hold_nothing_go_and_are_named(tmp_path):
    for suffix in ("mp4", "npz", "csv", "onnx"):
        (tmp_path / f".a.1.0.partial.{suffix}").write_bytes(b"")
    (tmp_path / ".a.1.0.partial.times").write_bytes(b"")
    (tmp_path / ".a.2.0.partial.copy").write_bytes(b"")
    notes = recover_folder(tmp_path)
    nothing = ": an earlier run was killed before it had written anything"
    assert notes == [
        *(f"{tmp_path}/a.{suffix}{nothing}" for suffix in ("csv", "mp4", "npz")),
        f"{tmp_path}: an earlier run was killed; 2 unfinished files removed",
    ]
    assert list(tmp_path.iterdir()) == []


def test_recovered_files_do_not_replace_each_other(tmp_path):
    for number in (1, 2):
        (tmp_path / f".a.{number}.0.partial.csv").write_text(f"frame\n{number}\nha")
    assert [note.rpartition(", ")[2] for note in recover_beside([tmp_path / "a.csv"])] == [
        f"is kept in {tmp_path / f'a.recovered-{number}.csv'}" for number in (1, 2)
    ]
    assert (tmp_path / "a.recovered-2.csv").read_text() == "frame\n2\n"


def test_zeros_of_a_power_cut_are_no_lines(tmp_path):
    (tmp_path / ".a.1.0.partial.csv").write_bytes(b"frame,time_s\n1,0\n2,0.04\n3,0" + bytes(100) + b"\n")
    recover_folder(tmp_path)
    assert (tmp_path / "a.recovered-1.csv").read_text() == "frame,time_s\n1,0\n2,0.04\n"


def test_an_export_removes_what_another_one_left(tmp_path):
    (tmp_path / ".model.1.0.partial.onnx").write_bytes(b"half")
    (tmp_path / ".a.1.0.partial.mp4").write_bytes(b"of a run")
    assert remove_unfinished(tmp_path) == [f"{tmp_path}: an earlier run was killed; 1 unfinished file removed"]
    assert [path.name for path in tmp_path.iterdir()] == [".a.1.0.partial.mp4"]


def test_the_command(cli, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/.a.1.0.partial.csv").write_text("frame\n1\n")
    ran = cli(main, "--recover", tmp_path)
    assert (ran.code, ran.err) == (0, "")
    kept = f"{tmp_path / 'deep/a.csv'}: an earlier run was killed; what it had written, 1 line, is kept in "
    assert ran.out == f"{kept}{tmp_path / 'deep/a.recovered-1.csv'}\n"
    assert cli(main, "--recover", tmp_path).out == f"{tmp_path}: killed runs have left nothing here\n"
    ran = cli(main, "--recover", tmp_path / "absent")
    assert (ran.code, ran.err.splitlines()) == (
        2,
        [f"salema-run: --recover {tmp_path / 'absent'}: no such folder; name the one that the run wrote to"],
    )
    assert cli(main, "a.mp4", "--recover", tmp_path).code == 2


def test_a_finished_video_is_not_taken_before_it_has_its_name(small_clip, tmp_path):
    """Its copy for players takes the place of the file that was locked."""
    with (
        VideoReader(small_clip) as reader,
        VideoWriter(tmp_path / "a.mp4", reader, reader.height, reader.width) as writer,
    ):
        for frame in reader:
            writer.write(frame.image_bgr, frame)
        assert writer.finish(all_sound=True) == []
        assert recover_folder(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert len(probe(tmp_path / "a.mp4")["images"]) == 12


def test_network_file_systems_lock_only_what_is_open_for_writing(tmp_path, monkeypatch):
    """As NFS and CIFS do (flock(2))."""
    flock = fcntl.flock

    def strict(file, how):
        if not file.writable():
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", strict)
    (tmp_path / ".a.1.0.partial.csv").write_text("frame\n1\n")
    assert len(recover_folder(tmp_path)) == 1
    assert (tmp_path / "a.recovered-1.csv").read_text() == "frame\n1\n"


def test_what_can_not_be_recovered_is_an_error(cli, tmp_path, monkeypatch):
    (tmp_path / ".a.1.0.partial.csv").write_text("frame\n1\n")
    (tmp_path / ".b.1.0.partial.csv").write_text("frame\n" + "1\n" * 1000)
    with small_files(1000):
        ran = cli(main, "--recover", tmp_path)
    assert ran.code == 1
    assert ran.out == (
        f"{tmp_path}/a.csv: an earlier run was killed; what it had written, 1 line, is kept in"
        f" {tmp_path}/a.recovered-1.csv\n"
    )
    left = f"{tmp_path}/.b.1.0.partial.csv"
    assert ran.err == (
        f"salema-run: {left}: an earlier run was killed, and what it left can't be copied (File too large); make room,"
        " or remove it\n"
    )

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    ran = cli(main, "--recover", tmp_path)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        f"salema-run: {left}: no telling whether a run still writes it (No locks available); if none does, remove it\n"
    )
