"""Small videos for the tests: writes them, copies them through our reader and writer, and reads them as a player."""

from fractions import Fraction

import av
import numpy as np

from salema.export.weights.seeded import moving_disc
from salema.runtime.video.video_reader import VideoReader
from salema.runtime.video.video_writer import VideoWriter

DISC = moving_disc(8, 64, 96)


def write_clip(
    path,
    frames,
    *,
    rate=Fraction(25),
    pts=None,
    audio=None,
    audio_rate=44100,
    options=None,
    setup=None,
    muxer=None,
    sound_share=1,
):
    """Encodes frames as H.264; `audio` names a codec for a tone as long as that share of them."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(
            "libx264", rate=rate, options={"preset": "ultrafast", "crf": "10"} | (options or {})
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if setup:
            setup(stream)
        sound = container.add_stream(audio, rate=audio_rate) if audio else None
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            if pts is not None:
                frame.pts, frame.time_base = pts[index], 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            write_tone(container, sound, round(audio_rate * len(frames) / rate * sound_share))
    return path


def write_tone(container, sound, samples):
    """Encodes a tone of so many samples."""
    rate, size = sound.codec_context.sample_rate, sound.codec_context.frame_size or 1024
    layout = sound.codec_context.layout
    tone = np.sin(np.arange(samples) * (2 * np.pi * 440 / rate)).astype(np.float32) / 4
    for start in range(0, samples, size):
        block = np.repeat(tone[None, start : start + size], layout.nb_channels, 0)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout.name)
        frame.sample_rate, frame.pts = rate, start
        container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


def write_film(path, frames):
    """Writes a lossless AVI, DHF1K's own format: its frames are exactly those of the images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_coded(path, frames, rate=30, muxer="avi")


def write_coded(
    file, frames, codec="ffv1", pix_fmt="bgr0", *, given="bgr24", rate=25, setup=None, muxer=None, options=None
):
    """Encodes frames, without sound; FFV1 keeps them as they are."""
    with av.open(file, "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pix_fmt
        if setup:
            setup(stream)
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=given)))
        container.mux(stream.encode(None))
    return file


def write_silence(path, codec="aac", samples=1024):
    """Encodes sound alone, of so many samples."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, samples), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def outputs(folder):
    """Returns the files in a folder, in order, without the records of what made them."""
    return sorted(path for path in folder.iterdir() if not path.name.endswith("salema.json"))


def copy(source, target):
    """Reads and writes every frame as it is."""
    with VideoReader(source) as reader, VideoWriter(target, reader, reader.height, reader.width) as writer:
        frames = list(reader)
        for frame in frames:
            writer.write(frame.image_bgr, frame)
        writer.finish(all_sound=True)
    return frames


def probe(path):
    """Returns what a player sees of a video: decoded frames, their time stamps in seconds, facts about the streams."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        return {
            "images": [frame.to_ndarray(format="bgr24") for frame in frames],
            "times": [float(frame.pts * frame.time_base) for frame in frames],
            "codec": stream.codec_context.name,
            "pix_fmt": stream.codec_context.pix_fmt,
            "rate": stream.average_rate,
            "size_hw": (stream.height, stream.width),
            "aspect": stream.sample_aspect_ratio or Fraction(1),
            "duration_s": float(stream.duration * stream.time_base),
            "sound_start_s": [float((s.start_time or 0) * s.time_base) for s in container.streams.audio],
            "sound": [s.codec_context.name for s in container.streams.audio],
            "sound_s": [float(s.duration * s.time_base) for s in container.streams.audio],
        }


def damage(path, numbers, kind="video", *, size=24, skip=0):
    """Overwrites bytes in some packets of a file, as a bad disk or a lost datagram does."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(**{kind: 0}) if packet.size]
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for number in numbers:
        before = packets[number][skip : skip + size]
        assert data.count(before) == 1
        data = data.replace(before, rng.integers(0, 256, len(before), np.uint8).tobytes())
    path.write_bytes(data)
    return path


def assert_close(images, expected, *, mean=4):
    """Each image is the expected one, but for a mean difference below this many levels."""
    assert len(images) == len(expected)
    for a, b in zip(images, expected, strict=True):
        assert a.shape == b.shape
        assert np.abs(a.astype(int) - b.astype(int)).mean() < mean
