"""Files with packets damaged by overwriting bytes: what is left out and what is reported; times stay right."""

import json
import re
import subprocess
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from limits import script
from videos import DISC, damage, probe, write_clip, write_coded

from salema.export.weights.seeded import moving_disc
from salema.runtime.cli.run import main
from salema.runtime.errors import VideoError
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import find_sources


def play(path, **options):
    (source,) = find_sources([str(path)])
    with Playback(source, Selection(**options)) as playback:
        return playback, [round(float(frame.pts * playback.time_base), 3) for frame in playback]


@pytest.fixture(scope="module")
def frames():
    return moving_disc(98, 64, 96)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("bf", ["0", "2"])
@pytest.mark.parametrize("numbers", [[34], [97], [34, 65, 97], [90, 91, 92]])
def test_a_damaged_packet_loses_its_own_picture_only(tmp_path, frames, suffix, bf, numbers):
    clip = write_clip(tmp_path / f"a.{suffix}", frames, options={"bf": bf, "g": "20"})
    _, whole = play(clip)
    with av.open(str(clip)) as container:
        stamps = [packet.pts * packet.time_base for packet in container.demux(video=0) if packet.size]
        start = min(stamps)
    lost = [round(float(stamps[number] - start), 3) for number in numbers]
    playback, times = play(damage(clip, numbers))
    assert times == [time for time in whole if time not in lost]
    assert (playback.damage.packets, playback.damage.why) == (
        len(numbers),
        "Invalid data found when processing input",
    )
    assert playback.damage.first_s == pytest.approx(min(lost), abs=0.5)  # a thread reports it a few packets late


@pytest.mark.parametrize("suffix", ["ts", "avi", "mp4", "mkv"])
def test_a_picture_that_the_decoder_fills_up_is_counted(tmp_path, frames, suffix):
    if suffix in {"mp4", "mkv"}:
        clip, number = write_coded(tmp_path / f"a.{suffix}", frames, "mpeg4", "yuv420p"), 34
        _, whole = play(clip)
        playback, times = play(damage(clip, [number], skip=8))
        assert 96 <= len(times) <= 98
    else:
        clip = write_clip(tmp_path / f"a.{suffix}", frames, options={"bf": "0"})
        _, whole = play(clip)
        playback, times = play(damage(clip, [34], skip=12))
        assert (len(times), playback.damage.packets, playback.damage.pictures) in {(98, 0, 1), (97, 1, 0)}
    assert set(times) <= set(whole)


def test_the_end_of_a_stream_that_was_entered_late_is_decoded_again_too(tmp_path, frames):
    clip = damage(write_clip(tmp_path / "a.mp4", np.concatenate([frames, frames]), options={"bf": "2"}), [190, 195])
    playback, times = play(clip, start_s=6)
    assert times[0] == 0
    assert len(times) == 196 - 150 - 2
    assert playback.damage.packets == 2


@pytest.mark.parametrize(
    ("suffix", "codec", "numbers", "lost"),
    [
        ("mp4", "ac3", [34, 60], 2),
        ("ts", "ac3", [34, 60], 2),
        ("mkv", "aac", [34, 60], 2),
        ("ts", "aac", [34, 60], 2),
        ("mp4", "aac", [34], 1),
        ("mkv", "ac3", [0], 1),
    ],
)
def test_damaged_sound_is_left_out_and_later_sound_stays_in_time(cli, model, tmp_path, suffix, codec, numbers, lost):
    clip = write_clip(tmp_path / f"a.{suffix}", np.repeat(DISC, 12, 0), audio=codec, options={"bf": "0"})
    assert cli(main, clip, "--model", model, "-o", tmp_path / "whole.mp4").code == 0
    damage(clip, numbers, "audio")
    ran = cli(main, clip, "--model", model, "-o", tmp_path / "b.mp4", "--json")
    assert ran.code == 0, ran.err
    assert f"{lost} packet{'s' * (lost > 1)} of the sound could not be read, and w" in ran.err
    before, after = probe(tmp_path / "whole.mp4"), probe(tmp_path / "b.mp4")
    assert len(after["images"]) == 96
    assert after["sound_s"][0] == pytest.approx(before["sound_s"][0], abs=0.04)
    whole, found = samples(tmp_path / "whole.mp4"), samples(tmp_path / "b.mp4")
    last = np.nonzero(np.abs(whole) > 0.1)[0][-1]
    assert np.nonzero(np.abs(found) > 0.1)[0][-1] == pytest.approx(last, abs=1200)  # the tone ends when it did


def samples(path):
    """Returns the sound as a player plays it: by its time stamps."""
    line = np.zeros(9 * 44100, np.float32)
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=44100)
        for frame in container.decode(audio=0):
            for part in resampler.resample(frame):
                start = round(float(part.pts * part.time_base) * 44100)
                block = part.to_ndarray()[0][max(-start, 0) :]
                line[max(start, 0) : max(start, 0) + len(block)] = block
    return line


def test_the_command_says_what_was_damaged_and_goes_on(cli, model, tmp_path, frames):
    clip = damage(write_clip(tmp_path / "a.mp4", frames, audio="aac"), [34, 70])
    ran = cli(main, clip, "--model", model, "-o", tmp_path / "b.mp4", "--json")
    assert ran.code == 0, ran.err
    assert "note: 2 damaged packets could not be decoded, and were left out, the first at 1." in ran.err
    summary = json.loads(ran.out)
    assert (summary["frames"], summary["damaged_packets"], summary["error"]) == (96, 2, None)
    after = probe(tmp_path / "b.mp4")
    assert len(after["images"]) == 96
    assert after["duration_s"] == pytest.approx(98 / 25, abs=1e-3)
    assert after["sound_s"][0] == pytest.approx(98 / 25, abs=0.05)


@pytest.mark.parametrize(("kind", "where"), [("video", r"at 1\.\d\d s"), ("audio", r"at 0\.7\d s")])
def test_strict_stops_at_the_first_fault(cli, model, tmp_path, frames, kind, where):
    clip = damage(write_clip(tmp_path / "a.mp4", frames, audio="aac"), [34, 70], kind)
    ran = cli(main, clip, "--model", model, "-o", tmp_path / "b.mp4", "--strict")
    assert ran.code == 1
    last = ran.err.splitlines()[-1]
    assert last.startswith(f"salema-run: {clip}: is damaged at ")
    assert re.search(where, last)
    assert last.endswith("without --strict such places are left out; what came before is written")
    assert 15 < len(probe(tmp_path / "b.mp4")["images"]) < 60


def test_strict_finds_a_fault_in_the_last_packet_of_sound(cli, model, tmp_path):
    clip = write_clip(tmp_path / "a.mkv", np.repeat(DISC, 4, 0), audio="ac3", sound_share=1.5)
    with av.open(str(clip)) as container:
        count = sum(packet.size > 0 for packet in container.demux(audio=0))
    damage(clip, [count - 1], "audio")
    ran = cli(main, clip, "--model", model, "-o", tmp_path / "b.mp4", "--strict")
    assert ran.code == 1
    assert "is damaged at " in ran.err.splitlines()[-1]
    assert len(probe(tmp_path / "b.mp4")["images"]) == 32


def test_a_file_without_a_frame_that_can_be_decoded(tmp_path):
    clip = damage(write_clip(tmp_path / "a.mp4", DISC), range(8))
    with pytest.raises(VideoError, match=r"holds no frame that can be decoded \(Invalid data"):
        play(clip)


def test_a_cut_off_file_with_damage_is_still_cut_off(tmp_path, frames):
    clip = write_clip(tmp_path / "a.mp4", frames, muxer={"movflags": "+faststart"})
    damage(clip, [10])
    data = clip.read_bytes()
    clip.write_bytes(data[: int(0.6 * len(data))])
    with pytest.raises(VideoError, match=r"of the 3\.9 s that it declares; it is probably cut off"):
        play(clip)


@pytest.mark.parametrize("codec", ["aac", "ac3"])
def test_joined_streams_keep_sound_and_pictures_together(cli, model, tmp_path, codec):
    """Each half has a second of tone with a flash, then silence. Tone and flash must begin together in both halves."""
    once = write_flash(tmp_path / "a.ts", codec)
    (tmp_path / "twice.ts").write_bytes(once.read_bytes() * 2)
    ran = cli(main, tmp_path / "twice.ts", "--model", model, "-o", tmp_path / "b.mp4", "--opacity", 0)
    assert ran.code == 0, ran.err
    assert "sound" not in ran.err
    after = probe(tmp_path / "b.mp4")
    bright = np.array([image.mean() > 128 for image in after["images"]])
    flashes = [after["times"][i] for i in np.nonzero(np.diff(bright.astype(int)) == 1)[0] + 1]
    loud = np.abs(samples(tmp_path / "b.mp4")).reshape(-1, 441).max(axis=1) > 0.1
    tones = np.nonzero(np.diff(loud.astype(int)) == 1)[0] / 100
    assert len(flashes) == 2
    assert flashes[1] - flashes[0] == pytest.approx(3, abs=0.1)
    np.testing.assert_allclose(tones, flashes, atol=0.06)


def write_flash(path, codec):
    """Three seconds; from 1 to 2 the picture is white and the sound loud."""
    images = np.full((75, 64, 96, 3), 20, np.uint8)
    images[25:50] = 235
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "10"})
        video.height, video.width, video.pix_fmt = 64, 96, "yuv420p"
        sound = container.add_stream(codec, rate=44100)
        tone = np.sin(np.arange(3 * 44100) / 10).astype(np.float32) / 2
        tone[:44100] = tone[2 * 44100 :] = 0
        size, layout = sound.codec_context.frame_size or 1024, sound.codec_context.layout
        for index, image in enumerate(images):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
            for start in range(-(-index * 1764 // size) * size, (index + 1) * 1764, size):
                block = np.repeat(tone[None, start : start + size], layout.nb_channels, 0)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=layout.name)
                frame.sample_rate, frame.pts = 44100, start
                container.mux(sound.encode(frame))
        for stream in (video, sound):
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("mkv", "ac3")])
def test_a_loop_repeats_its_sound(cli, model, tmp_path, suffix, codec):
    clip = write_flash(tmp_path / f"a.{suffix}", codec)
    arguments = (clip, "--model", model, "-o", tmp_path / "b.mp4", "--loop", 3, "--duration", 2.5)
    assert cli(main, *arguments).code == 0
    after = probe(tmp_path / "b.mp4")
    assert after["duration_s"] == pytest.approx(7.5, abs=0.01)
    assert after["sound_s"][0] == pytest.approx(7.5, abs=0.1)
    loud = np.abs(samples(tmp_path / "b.mp4")[: 5 * 44100]).reshape(-1, 441).max(axis=1) > 0.1
    np.testing.assert_allclose(np.nonzero(np.diff(loud.astype(int)) == 1)[0] / 100, [1, 3.5], atol=0.06)


def test_a_loop_frees_its_decoders(tmp_path, frames):
    """Each pass has its own decoder with threads. They must end without waiting for Python's garbage collector."""
    clip = write_clip(tmp_path / "a.mp4", np.repeat(frames[:5], 2, 0), audio="aac")
    (source,) = find_sources([str(clip)])
    counts = []
    with Playback(source, Selection(loop=30)) as playback:
        for index, _ in enumerate(playback):
            if index % 10 == 5:
                counts.append(threads())
    assert len(counts) == 30
    assert max(counts[5:]) <= counts[1]


def threads():
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Threads:"))


def test_sound_of_a_pipe_is_carried(model, tmp_path):
    clip = write_flash(tmp_path / "a.ts", "ac3")
    command = [script("salema-run"), "-", "--model", str(model), "-o", "b.mp4", "--opacity", "0"]
    ran = subprocess.run(command, input=clip.read_bytes(), capture_output=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert b"sound" not in ran.stderr
    loud = np.abs(samples(tmp_path / "b.mp4")).reshape(-1, 441).max(axis=1) > 0.1
    after = probe(tmp_path / "b.mp4")
    bright = [time for time, image in zip(after["times"], after["images"], strict=True) if image.mean() > 128]
    np.testing.assert_allclose(np.nonzero(np.diff(loud.astype(int)) == 1)[0] / 100, bright[:1], atol=0.06)


def test_the_command_says_which_image_was_damaged_and_goes_on(cli, model, tmp_path, frames):
    (tmp_path / "in").mkdir()
    for index, image in enumerate(frames[:10]):
        cv2.imwrite(str(tmp_path / f"in/{index}.png"), image)
    (tmp_path / "in/4.png").write_bytes((tmp_path / "in/4.png").read_bytes()[:500])
    (tmp_path / "in/9.png").write_bytes(b"")
    ran = cli(main, tmp_path / "in", "--fps", 10, "--model", model, "-o", tmp_path / "b.mp4", "--json")
    assert ran.code == 0, ran.err
    why = f"{tmp_path}/in/4.png: breaks off; copy or make it anew"
    assert f"note: 2 images could not be read, and were left out, the first at 0.4 s ({why})\n" in ran.err
    summary = json.loads(ran.out)
    assert (summary["frames"], summary["damaged_images"], summary["damage_why"]) == (8, 2, why)
    assert probe(tmp_path / "b.mp4")["duration_s"] == pytest.approx(1.0, abs=1e-3)
    ran = cli(main, tmp_path / "in", "--model", model, "-o", tmp_path / "c.mp4", "--strict")
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == f"salema-run: {why}; what came before is written"
