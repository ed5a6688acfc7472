import os

import pytest

from salema.runtime.doctor.findings import Finding
from salema.runtime.doctor.machine_probes import probe_jetson, probe_video
from salema.runtime.sources import pipes

GST_LAUNCH = """#!/bin/sh
[ "$1" = --version ] && {{ echo "gst-launch-1.0 version 1.22.0"; exit 0; }}
printf '%s\\n' "$@" > {log}
{then}
"""


@pytest.mark.parametrize(
    ("then", "state", "detail", "advice"),
    [
        ("printf '\\032E'", "works", "1.22.0, a pipeline ran", ""),
        (
            "echo 'WARNING: erroneous pipeline: no element \"matroskamux\"' >&2; exit 1",
            "broken",
            'gst-launch-1.0: WARNING: erroneous pipeline: no element "matroskamux"',
            "apt-get install gstreamer1.0-plugins-base gstreamer1.0-plugins-good",
        ),
    ],
)
def test_gstreamer_is_judged_by_running_a_pipeline(tmp_path, monkeypatch, then, state, detail, advice):
    program = tmp_path / "gst-launch-1.0"
    program.write_text(GST_LAUNCH.format(log=tmp_path / "log", then=then))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (found,) = [finding for finding in probe_video() if finding.name == "gst-launch-1.0"]
    assert (found.state, found.detail, found.advice) == (state, detail, advice)
    ran = (tmp_path / "log").read_text().split()
    assert ran == ["-q", "videotestsrc", "num-buffers=1", "!", *pipes.TO_US.split()]


def test_without_gstreamer_the_doctor_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = [finding for finding in probe_video() if finding.name == "gst-launch-1.0"]
    assert (found.state, found.detail) == ("missing", "gst-launch-1.0 is not installed")
    assert found.advice == "for GStreamer pipelines as sources: apt-get install gstreamer1.0-tools"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Puts shell scripts in front of the system's programs."""

    def put(**scripts):
        for name, script in scripts.items():
            path = tmp_path / "bin" / name.replace("_", "-")
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)

    return put


def test_a_jetson_shows_board_release_and_power_mode(tmp_path, programs):
    (tmp_path / "release").write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n")
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    programs(dpkg_query="echo 6.2+b77", nvpmodel="printf 'NV Power Mode: MODE_15W\\n0\\n'")
    assert probe_jetson(tmp_path / "release", tmp_path / "model") == [
        Finding("board", "works", "NVIDIA Jetson Orin Nano Developer Kit"),
        Finding("L4T", "works", "36.4.3"),
        Finding("JetPack", "works", "6.2+b77"),
        Finding("power mode", "works", "MODE_15W"),
    ]


def test_a_jetson_in_a_container_says_what_it_does_not_see(tmp_path, programs):
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson AGX Orin Developer Kit\0")
    programs(
        dpkg_query="echo 'dpkg-query: no packages found matching nvidia-jetpack' >&2; exit 1",
        nvpmodel="echo 'NVPM ERROR: no such device' >&2; exit 255",
    )
    board, l4t, jetpack, mode = probe_jetson(tmp_path / "release", tmp_path / "model")
    assert (board.state, l4t.state, jetpack.state, mode.state) == ("works", "missing", "missing", "broken")
    assert jetpack.detail == "dpkg-query: no packages found matching nvidia-jetpack"
    assert jetpack.advice == "sudo apt-get install nvidia-jetpack"
    assert mode.detail == "nvpmodel: NVPM ERROR: no such device"


def test_another_machine_has_no_jetson_section(tmp_path):
    (tmp_path / "model").write_bytes(b"Raspberry Pi 5 Model B\0")
    assert probe_jetson(tmp_path / "release", tmp_path / "model") is None
