"""Commands as a user starts them, and under a limit that acts as a full disk."""

import resource
import subprocess
import sys
from pathlib import Path


def script(name):
    return str(Path(sys.executable).with_name(name))


def run_limited(command, *, file_size, cwd):
    """Runs a command that can't write files over a size in bytes: a full disk without root or a mount."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, preexec_fn=limit, cwd=cwd, timeout=120
    )
