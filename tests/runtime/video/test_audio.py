import subprocess
import sys

import av
import numpy as np
import pytest
from videos import DISC, copy, probe, write_clip

from salema.runtime.video.video_reader import VideoReader
from salema.runtime.video.video_writer import VideoWriter


@pytest.mark.parametrize(
    ("container", "codec", "expected"),
    [
        ("mp4", "aac", "aac"),
        ("mp4", "libmp3lame", "mp3float"),  # FFmpeg's name of its MP3 decoder
        ("mkv", "flac", "flac"),
        ("avi", "mp2", "aac"),
        ("avi", "ac3", "aac"),
        ("mkv", "pcm_s16le", "aac"),
    ],
)
def test_sound_is_kept(tmp_path, container, codec, expected):
    frames = np.repeat(DISC, 8, 0)
    source = write_clip(tmp_path / f"a.{container}", frames, audio=codec)
    copy(source, tmp_path / "b.mp4")
    after = probe(tmp_path / "b.mp4")
    assert after["sound"] == [expected]
    assert after["sound_s"][0] == pytest.approx(64 / 25, abs=0.1)
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=44100)
    with av.open(str(tmp_path / "b.mp4")) as opened:
        decoded = [part for frame in opened.decode(audio=0) for part in resampler.resample(frame)]
    samples = np.concatenate([frame.to_ndarray()[0] for frame in decoded])
    spectrum = np.abs(np.fft.rfft(samples[11025 : 11025 + 44100]))
    assert spectrum.argmax() == pytest.approx(440, abs=2)


@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_sound_starts_with_the_pictures_where_the_source_starts_later(tmp_path, codec):
    source = write_clip(tmp_path / "a.ts", np.repeat(DISC, 8, 0), audio=codec, muxer={"output_ts_offset": "5"})
    before = probe(source)
    assert min(before["sound_start_s"][0], before["times"][0]) > 4
    copy(source, tmp_path / "b.mp4")
    after = probe(tmp_path / "b.mp4")
    assert after["times"][0] < 0.2
    lag = before["sound_start_s"][0] - before["times"][0]
    assert after["sound_start_s"][0] - after["times"][0] == pytest.approx(lag, abs=0.06)


def test_sound_that_is_copied_is_the_same_to_the_byte(tmp_path):
    source = write_clip(tmp_path / "a.mp4", np.repeat(DISC, 8, 0), audio="aac")
    copy(source, tmp_path / "b.mp4")
    packets = []
    for path in (source, tmp_path / "b.mp4"):
        with av.open(str(path)) as container:
            sound = container.streams.audio[0]
            packets.append([(bytes(p), float(p.pts * p.time_base)) for p in container.demux(sound) if p.size])
    assert packets[0] == packets[1]


@pytest.mark.parametrize("rate", [192000, 48001, 5512])
def test_sound_at_rates_that_aac_lacks(tmp_path, rate):
    source = write_clip(tmp_path / "a.mkv", np.repeat(DISC, 8, 0), audio="pcm_s16le", audio_rate=rate)
    copy(source, tmp_path / "b.mp4")
    after = probe(tmp_path / "b.mp4")
    assert after["sound"] == ["aac"]
    assert after["sound_s"][0] == pytest.approx(64 / 25, abs=0.2)


@pytest.mark.parametrize("name", ["a.mov", "a.mkv"])
def test_surround_pcm_is_folded(tmp_path, name):
    """In MOV it has a custom channel layout, with which PyAV frees memory twice."""
    code = f"""
import sys; sys.path[:0] = {sys.path!r}
from pathlib import Path
from videos import DISC, copy, probe
import av, numpy as np
with av.open({name!r}, "w") as container:
    video = container.add_stream("libx264", rate=25)
    video.height, video.width, video.pix_fmt = 64, 96, "yuv420p"
    sound = container.add_stream("pcm_s24le", rate=48000)
    sound.codec_context.layout = "7.1"
    for image in DISC:
        container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
    container.mux(video.encode(None))
    tone = (np.sin(np.arange(8 * 15360) / 50) * 1e8).astype(np.int32)[None]
    frame = av.AudioFrame.from_ndarray(tone, format="s32", layout="7.1")
    frame.sample_rate = 48000
    container.mux(sound.encode(frame))
    container.mux(sound.encode(None))
copy(Path({name!r}), Path("b.mp4"))
after = probe("b.mp4")
print(len(after["images"]), after["sound"], round(after["sound_s"][0], 1))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "8 ['aac'] 0.3\n")


def test_sound_of_an_unknown_codec_is_left_out_and_the_pictures_stay(tmp_path):
    source = write_clip(tmp_path / "a.mkv", DISC, audio="ac3")
    data = source.read_bytes()
    assert data.count(b"A_AC3") == 1
    source.write_bytes(data.replace(b"A_AC3", b"A_XYZ"))
    with VideoReader(source) as reader, VideoWriter(tmp_path / "b.mp4", reader, 64, 96) as writer:
        for frame in reader:
            writer.write(frame.image_bgr, frame)
        writer.finish(all_sound=True)
        assert "the sound is left out" in writer.sound_problem
    after = probe(tmp_path / "b.mp4")
    assert (len(after["images"]), after["sound"]) == (8, [])


def test_sound_cut_short_with_the_pictures(tmp_path):
    source = write_clip(tmp_path / "a.mp4", np.repeat(DISC, 8, 0), audio="aac")
    with VideoReader(source) as reader, VideoWriter(tmp_path / "b.mp4", reader, 64, 96) as writer:
        for frame, _ in zip(reader, range(10), strict=False):
            writer.write(frame.image_bgr, frame)
        writer.finish(all_sound=False)
    after = probe(tmp_path / "b.mp4")
    assert len(after["images"]) == 10
    assert after["sound_s"][0] == pytest.approx(0.4, abs=0.1)
