"""Commands as a user starts them, and under a limit that acts as a full disk."""

import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path


def script(name):
    return str(Path(sys.executable).with_name(name))


@contextmanager
def small_files(file_size):
    """This process can't write files over a size in bytes either."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run_limited(command, *, file_size, cwd):
    """Runs a command that can't write files over a size in bytes: a full disk without root or a mount."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, preexec_fn=limit, cwd=cwd, timeout=120
    )


def run_in_little_memory(imports, code, *arguments, room_mib=300):
    """Runs code that may take so much memory more than its imports have, and no more; it prints what it finds."""
    limited = f"""
import resource, sys
from pathlib import Path
{imports}
path = Path(sys.argv[1])
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + ({room_mib} << 20),) * 2)
{code}
"""
    command = [sys.executable, "-c", limited, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
