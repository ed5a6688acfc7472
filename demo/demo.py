"""The main job on what ships: nano's weights, a natural clip, a saliency video, its maps and a page on it."""

import html
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fetch_clips import CLIPS, ROOT, fetch

from salema.export.weights.seeded import moving_disc

OUT = Path("demo-output")  # in the root, where all runs: so no page or message names a place of this machine
BIN = Path(sys.executable).parent
WEIGHTS = "nano: trained on where 15 viewers looked at photographs, not on videos."


def synthetic_clip(path: Path) -> Path:
    """Writes four seconds of a disc that moves over a gradient."""
    (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
    frames = moving_disc(50, 272, 640)
    writer = cv2.VideoWriter(str(ROOT / path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (640, 272))
    for frame in [*frames, *frames[::-1]]:
        writer.write(frame)
    writer.release()
    return path


def command(name: str, *arguments: object) -> dict[str, Any]:
    """Runs one of our commands as a user would, and returns what its --json printed."""
    line = [name, *map(str, arguments), "--json"]
    print("$", " ".join(line), flush=True)
    ran = subprocess.run([str(BIN / name), *line[1:]], stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    if ran.returncode:
        sys.exit(ran.returncode)
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


def strip(video: Path, path: Path, count: int = 4) -> None:
    """Writes a few frames of a video side by side as one JPEG."""
    capture = cv2.VideoCapture(str(ROOT / video))
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    pictures = []
    for index in np.linspace(0, total - 1, count).astype(int):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(index))
        ok, frame = capture.read()
        if ok:
            pictures.append(cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    cv2.imwrite(str(ROOT / path), np.hstack(pictures))


def page(export: dict[str, Any], run: dict[str, Any], clip: Path) -> str:
    """Returns the summary as one page of HTML."""
    spec, check = export["spec"], export["check"]
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in run["stage_ms"].items())
    rows = {
        "Clip": clip.name,
        "Architecture": f"{spec['architecture']}, {spec['precision']}, {spec['height']}x{spec['width']}",
        "Coefficient": f"{spec['coefficient']:.6g}: {spec['coefficient_source']}",
        "Weights": f"{WEIGHTS} SHA-256 {spec['weights_sha256']}",
        "Model file": f"{', '.join(export['paths'])}, {export['size_bytes'] / 1e6:.1f} MB",
        "Against PyTorch": f"maps differ by {check['map_max']:.2g} at most, CC {check['cc']:.6f},"
        f" over {check['frames']} frames with a reset",
        "Frames": f"{run['frames']} in {run['seconds']:.1f} s, {run['fps']:.1f} fps on this machine",
        "Milliseconds per frame": stages,
        "Maps": f"{run['maps']}, PNG at network size, per-frame min-max",
    }
    table = "\n".join(f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items())
    return f"""<!doctype html>
<meta charset="utf-8">
<title>salema demo</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
video, img {{ width: 100% }}
th {{ text-align: left; padding-right: 1.5rem; vertical-align: top; white-space: nowrap }}
td {{ overflow-wrap: anywhere }}
</style>
<h1>salema demo</h1>
<video src="overlay.mp4" controls muted loop></video>
<img src="frames.jpg" alt="four frames of the overlay">
<table>
{table}
</table>
"""


def main() -> None:
    """Exports, runs, and writes the page."""
    clips = CLIPS.relative_to(ROOT)
    clip = clips / "bikes.mp4" if fetch() else synthetic_clip(clips / "synthetic.mp4")
    export = command("salema-export", "--weights", "nano", "-o", OUT / "model")
    run = command("salema-run", clip, "--model", OUT / "model", "-o", OUT / "overlay.mp4", "--maps", OUT / "maps")
    strip(OUT / "overlay.mp4", OUT / "frames.jpg")
    (ROOT / OUT / "summary.html").write_text(page(export, run, clip))
    print(f"\n{run['frames']} frames of {clip.name} at {run['fps']:.1f} fps:")
    for name in ("overlay.mp4", "maps", "summary.html", "model"):
        print(f"  {OUT / name}")
    print(f"Weights: {WEIGHTS}")


if __name__ == "__main__":
    main()
