"""A setting of glibc: freed memory stays with the process."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3), as <malloc.h> numbers them


def keep_freed_memory() -> None:
    """Lets glibc keep what is freed for the next array, where it would give maps of 640x360 back each time.

    Fetching their pages again took three quarters of the time that the metrics of such a map took, in float64. The
    process holds on to its peak. Elsewhere than on glibc this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_THRESHOLD, 2**25)  # the greatest value that mallopt accepts
    mallopt(_TRIM_THRESHOLD, 2**29)
