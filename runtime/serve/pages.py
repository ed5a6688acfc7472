"""The page's files, read once: no request reaches the file system."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_NAMES = ("index.html", "login.html", "app.js", "style.css", "icon.svg")


def _read(name: str) -> tuple[str, bytes]:
    return _KINDS[name.rpartition(".")[2]], files("salema.runtime.serve").joinpath("page", name).read_bytes()


PAGES: Mapping[str, tuple[str, bytes]] = {name: _read(name) for name in _NAMES}
"""The media type and the content of each file, by its name."""
