"""Hundreds of damaged files: the reader yields frames or raises one sentence, and never crashes or hangs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from videos import write_clip

from salema.export.weights.seeded import moving_disc

FILES = 120
CODE = """
import sys
from pathlib import Path
from salema.runtime.errors import VideoError
from salema.runtime.video.video_reader import VideoReader
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, flush=True)  # the last one named is the one that crashed
    try:
        with VideoReader(path) as reader:
            assert all(frame.image_bgr.ndim == 3 for frame in reader)
    except VideoError as error:
        assert str(error).startswith(str(path)), error
        assert "\\n" not in str(error)
print("done")
"""
COPY = CODE.replace(
    "            assert all(frame.image_bgr.ndim == 3 for frame in reader)\n",
    """            with VideoWriter(path.parent.parent / "copy.mp4", reader, reader.height, reader.width) as writer:
                for frame in reader:
                    writer.write(frame.image_bgr, frame)
                writer.finish(all_sound=True)
""",
).replace("import VideoReader", "import VideoReader\nfrom salema.runtime.video.video_writer import VideoWriter")


def mutate(data, rng):
    """Damages data at random in one way: it changes some bytes, or cuts, repeats or removes a piece."""
    changed = bytearray(data)
    at = int(rng.integers(len(data)))
    length = int(rng.integers(1, max(len(data) // 4, 2)))
    match int(rng.integers(4)):
        case 0:
            for _ in range(int(rng.integers(1, 60))):
                changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
        case 1:
            del changed[at:]
        case 2:
            del changed[at : at + length]
        case 3:
            changed[at:at] = changed[at : at + length]
    return bytes(changed)


def check(tmp_path, suffix, code, **options):
    whole = write_clip(tmp_path / f"whole{suffix}", moving_disc(12, 48, 64), **options).read_bytes()
    rng = np.random.default_rng(0)
    folder = tmp_path / "damaged"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number:03d}{suffix}").write_bytes(mutate(whole, rng))
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout.splitlines()[-1:], done.stderr[-2000:])
    assert done.stdout.splitlines()[-1] == "done"
    assert len(list(Path(folder).iterdir())) == FILES


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_no_damaged_file_crashes_or_hangs_the_reader(tmp_path, suffix):
    check(tmp_path, suffix, CODE)


@pytest.mark.parametrize(("suffix", "sound"), [(".mp4", "aac"), (".mkv", "flac")])
def test_no_damaged_file_with_sound_crashes_or_hangs_the_writer(tmp_path, suffix, sound):
    check(tmp_path, suffix, COPY, audio=sound, audio_rate=48000)
