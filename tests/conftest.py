import sys
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

from salema.export.exporter import Options, export_model
from salema.export.seeded import moving_disc, seeded_state_dict

HERE = Path(__file__).parent
CLIPS = HERE.parent / ".cache/clips"
SIZE_HW = (64, 96)


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys, monkeypatch):
    """Runs a command in this process as its console script would; gives exit code, stdout, stderr."""

    def run(main, *args):
        monkeypatch.setattr(sys, "argv", [main.__module__, *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Ran(stop.value.code or 0, out, err)

    return run


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Exports a narrow network, once for each set of options."""
    done = {}

    def export(weights="seeded:16", **options):
        key = (weights, *sorted(options.items()))
        if key not in done:
            options = {"imgsz_hw": SIZE_HW, **options}
            folder = tmp_path_factory.mktemp("model")
            done[key] = export_model(Options(weights, folder, **options), lambda _: None).path.parent
        return done[key]

    return export


@pytest.fixture(scope="session")
def model(exported):
    """A narrow SalEMA30 at 64x96."""
    return exported()


@pytest.fixture(scope="session")
def seeded_arrays():
    """Full-size seeded weights by family, made once."""
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = seeded_state_dict(kind)
        return made[kind]

    return make


@pytest.fixture(scope="session")
def golden():
    with np.load(HERE / "golden/maps_64x96.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="session")
def disc():
    """Four BGR frames at the golden size."""
    return moving_disc(4, *SIZE_HW)


def write_clip(path, frames, *, rate=Fraction(25), pts=None, audio=None, audio_rate=44100, options=None, setup=None):
    """Encodes frames as H.264; `audio` names a codec for a tone as long as the pictures."""
    with av.open(str(path), "w") as container:
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
            samples = round(audio_rate * len(frames) / rate)
            tone = np.sin(np.arange(samples) * (2 * np.pi * 440 / audio_rate)).astype(np.float32) / 4
            size = sound.codec_context.frame_size or 1024
            layout = sound.codec_context.layout.name
            planes = sound.codec_context.layout.nb_channels
            for start in range(0, samples, size):
                block = np.repeat(tone[None, start : start + size], planes, 0)
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
                frame.sample_rate, frame.pts = audio_rate, start
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory):
    """Twelve frames of 96x64 with sound."""
    path = tmp_path_factory.mktemp("clips") / "disc.mp4"
    return write_clip(path, moving_disc(12, *SIZE_HW), audio="aac")


@pytest.fixture(scope="session")
def natural_clip(tmp_path_factory):
    """A natural clip that `make` fetched, or a synthetic one of the same length where it could not."""
    fetched = CLIPS / "carphone_pristine.mp4"
    if fetched.is_file():
        return fetched
    path = tmp_path_factory.mktemp("clips") / "synthetic.mp4"
    return write_clip(path, moving_disc(120, 144, 176), rate=Fraction(30000, 1001))


def probe(path):
    """What a player would see of a video: decoded frames, their time stamps in seconds, stream facts."""
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
            "sound": [s.codec_context.name for s in container.streams.audio],
            "sound_s": [float(s.duration * s.time_base) for s in container.streams.audio],
        }
