"""Finds the sources a user names: files, folders, patterns, lists, cameras, URLs, GStreamer pipelines, stdin."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import urlsplit

from salema.runtime.errors import UsageError, VideoError, reason
from salema.runtime.files.bounded_files import MOST_LIST_BYTES, read_file
from salema.runtime.files.image_size import JPEG_START, PNG_START
from salema.runtime.files.natural import by_path

Kind = Literal["video", "images", "camera", "url", "pipeline", "stdin"]
IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
VIDEOS = {
    *(".3gp", ".avi", ".flv", ".h264", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".mxf", ".ogv", ".ts", ".webm", ".wmv", ".y4m", ".gif", ".apng"),
}
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_CAMERA = re.compile(r"\d{1,3}")
_PLAIN_CAMERA = re.compile(r"-|\d{1,2}")
_DEVICE = re.compile(r"/dev/video(\d+)")
_LIST = ".txt"
_MOST_CHUNKS = 1000  # before a PNG's picture
_MOST_PROBLEMS = 5  # in one sentence
_FILE_SOURCES = re.compile(
    r"\b((multi|split)?filesrc|splitmuxsrc|imagesequencesrc|videotestsrc(?!.*\bis-live=(true|1)))\b|\buri=[\"']?file:"
)


@dataclass(frozen=True)
class Source:
    """One source of frames, not opened yet.

    Attributes:
        kind: one of `Kind`.
        given: the path, URL, camera or pipeline.
        name: what its outputs are named after.
        images: the frames, in order, if they are images.
        problem: why it can't be opened, in a sentence; else empty.
        of_dataset: whether it is a dataset's video. It is then played as the published code does: no frame may be left
            out, and the state is not reset at gaps or changes of size.
    """

    kind: Kind
    given: str
    name: str
    images: tuple[Path, ...] = ()
    problem: str = ""
    of_dataset: bool = False

    @property
    def shown(self) -> str:
        """The source's name in messages: a URL without its parts that may hold a password."""
        if self.kind != "url":
            return {"stdin": "standard input", "pipeline": "GStreamer"}.get(self.kind, self.given)
        return shown_url(self.given)

    @property
    def is_web_file(self) -> bool:
        """Whether it is a URL whose name is a video file's, so that frames come as fast as they are read."""
        return self.kind == "url" and Path(urlsplit(self.shown).path).suffix.lower() in VIDEOS - {".mjpeg"}

    @property
    def is_live_pipeline(self) -> bool:
        """Whether it is a pipeline that reads no files and makes no test pictures, so that frames come in real time."""
        return self.kind == "pipeline" and not _FILE_SOURCES.search(self.given)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it reads."""
        if self.problem:
            return ()
        return (Path(self.given),) if self.kind == "video" else self.images

    @property
    def repeatable(self) -> bool:
        """Whether it can be played again from its start."""
        return self.kind in {"video", "images"}


def shown_url(url: str) -> str:
    """Returns a URL without its parts that may hold a password or a key: user, query and fragment.

    Raises:
        ValueError: it is no URL.
    """
    return urlsplit(_without_user(url))._replace(query="", fragment="").geturl()


def find_sources(given: Sequence[str], *, strict: bool = True) -> list[Source]:
    """Finds the sources a user names, in order, and gives each a different name.

    Args:
        given: for each: a video file; a folder of images (one video) or of videos (each one); a pattern such as
            `clips/*.mp4` (images that match are one video); a `.txt` list of sources, one a line; a camera's number; a
            URL; a GStreamer pipeline (with ` ! ` in it); `-` for standard input.
        strict: whether one missing source is an error; else it becomes a source with a `problem`.

    Raises:
        VideoError: a source (if not `strict`: every source) is missing, unreadable or empty.
        UsageError: a text can't name a source.
    """
    sources = [source for text in given for source in _attempt(_find, text, text, strict=strict)]
    if sources and all(source.problem for source in sources):
        problems = [source.problem for source in sources[:_MOST_PROBLEMS]]
        raise VideoError("; ".join([*problems, "..."] if sources[_MOST_PROBLEMS:] else problems))
    taken: set[str] = set()
    named = []
    for source in sources:
        name, number = source.name, 1
        while name.casefold() in taken:  # some file systems take A and a for the same
            number += 1
            name = f"{source.name}_{number}"
        taken.add(name.casefold())
        named.append(replace(source, name=name))
    return named


def _attempt(find: Callable[..., list[Source]], text: str, *arguments: object, strict: bool) -> list[Source]:
    """Returns the sources that `find` returns; if it fails and not `strict`, one source with the `problem`."""
    try:
        return find(*arguments, strict=strict)
    except VideoError as error:
        if strict:
            raise
        return [Source("video", text, Path(text).stem, problem=str(error))]


def _find(text: str, *, in_list: bool = False, strict: bool = True) -> list[Source]:
    if not text:
        raise UsageError("a source has no name; give a video file, say")
    path = Path(text)
    # A link such as those in /dev/v4l/by-id is opened by its own name: the number may change while it is away.
    if device := _DEVICE.fullmatch(os.path.realpath(path) if path.is_symlink() else text):
        return [Source("camera", text, f"camera{device[1]}")]
    if _is_path(text):
        return _in_files(text, path, in_list=in_list, strict=strict)
    if _URL.match(text):
        return _of_url(text, in_list=in_list)
    if _CAMERA.fullmatch(text):
        return [Source("camera", text, f"camera{text}")]
    return [Source("stdin", text, "stdin") if text == "-" else Source("pipeline", text, "gstreamer")]


def _is_path(text: str) -> bool:
    """Whether a text names files. Any existing path does, unless it looks like a camera's number."""
    if Path(text).exists() and not _PLAIN_CAMERA.fullmatch(text):
        return True
    return not (text == "-" or " ! " in text or _URL.match(text) or _CAMERA.fullmatch(text))


def _in_files(text: str, path: Path, *, in_list: bool, strict: bool) -> list[Source]:
    if path.is_dir():
        return _in_folder(path)
    if path.suffix.lower() == _LIST and path.is_file():
        if in_list:
            raise VideoError(f"{text}: a list within a list; name its sources in one")
        return _in_list(path, strict=strict)
    if glob.has_magic(text) and not path.exists():
        return _matching(text)
    if path.exists() and not path.is_file():
        raise VideoError(f"{text}: is no ordinary file; pipe it in, with - as the source")
    if not path.is_file():
        raise VideoError(f"{text}: no such video file")
    if _is_image(path):
        return [Source("images", text, path.stem, (path,))]
    return [Source("video", text, path.stem)]


def _is_image(path: Path) -> bool:
    """Whether a file is a still PNG or JPEG by name and content, as some videos have an image's name."""
    if path.suffix.lower() not in IMAGES:
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(PNG_START)).startswith((PNG_START, JPEG_START)) and not _is_animated_png(file)
    except OSError:  # reported where it is opened
        return False


def _is_animated_png(file: BinaryIO) -> bool:
    """Whether a PNG has the chunk that announces more frames, which comes before the first one."""
    file.seek(0)
    if file.read(len(PNG_START)) != PNG_START:
        return False
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8 or head[4:] in {b"IDAT", b"IEND"}:  # noqa: PLR2004 - a chunk's length and name
            return False
        if head[4:] == b"acTL":
            return True
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)  # a checksum follows
    return False


def _without_user(url: str) -> str:
    """Removes user and password, which may hold unquoted `?` and `#`; the query may hold an `@`."""
    scheme, _, rest = url.partition("://")
    before = re.split(r"[?#]", rest, maxsplit=1)[0]
    user = before.rpartition("@")[0] if "@" in before else rest.rpartition("@")[0]
    return f"{scheme}://{rest[len(user) :].removeprefix('@')}"


def _of_url(text: str, *, in_list: bool) -> list[Source]:
    try:
        urlsplit(text)
        parts = urlsplit(_without_user(text))
    except ValueError:  # the message must not show the URL, which may hold a password
        advice = "in a user's name or password write [ as %5B, ] as %5D, and other signs likewise"
        raise UsageError(f"this {text.partition(':')[0]} URL can't be read; {advice}") from None
    if parts.scheme == "file":
        from urllib.request import url2pathname  # noqa: PLC0415 - it imports http, ssl and email

        return _find(url2pathname(parts.path), in_list=in_list)
    name = Path(parts.path).stem or parts.hostname or parts.scheme
    return [Source("url", text, re.sub(r"[^\w.-]", "_", name))]


def _in_folder(folder: Path) -> list[Source]:
    """Returns one source for a folder of images, or one for each video in the folder."""
    try:
        files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    except OSError as error:
        raise VideoError(f"{folder}: this folder can't be read ({reason(error)})") from error
    images, videos = (by_path(p for p in files if p.suffix.lower() in kind) for kind in (IMAGES, VIDEOS))
    if images and videos:
        raise VideoError(
            f"{folder}: holds images and videos; name those you mean, such as '{folder}/*{videos[0].suffix}'"
        )
    if images:
        return [Source("images", str(folder), folder.resolve().name or "images", tuple(images))]
    if not videos:
        raise VideoError(f"{folder}: holds neither images nor videos; for folders of folders there is --dataset other")
    return [Source("video", str(path), path.stem) for path in videos]


def _matching(pattern: str) -> list[Source]:
    paths = by_path(path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file())  # noqa: PTH207
    if not paths:
        raise VideoError(f"{pattern}: no file matches this pattern")
    if all(path.suffix.lower() in IMAGES for path in paths):
        return [Source("images", pattern, paths[0].resolve().parent.name or "images", tuple(paths))]
    return [Source("video", str(path), path.stem) for path in paths]


def _in_list(path: Path, *, strict: bool) -> list[Source]:
    """Reads a list. Paths are relative to its folder; empty lines and lines that begin with # are skipped."""
    try:
        text = read_file(path, MOST_LIST_BYTES, VideoError).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise VideoError(f"{path}: can't be read as a list of sources ({reason(error)})") from error
    lines = (line.strip() for line in text.splitlines())
    wanted = [line for line in lines if line and not line.startswith("#")]
    if not wanted:
        raise VideoError(f"{path}: this list names no source; it takes one a line")
    return [source for line in wanted for source in _attempt(_of_line, line, path, line, strict=strict)]


def _of_line(path: Path, line: str, *, strict: bool) -> list[Source]:
    try:
        return _find(_in_folder_of(path, line), in_list=True, strict=strict)
    except (VideoError, UsageError) as error:  # a wrong line is no usage error: other lines may be right
        raise VideoError(f"{path}: {error}") from error


def _in_folder_of(path: Path, line: str) -> str:
    beside = path.parent / line
    if not beside.exists() and not _is_path(line):
        return line
    is_pattern = glob.has_magic(line) and not beside.exists() and not Path(line).is_absolute()
    return str(Path(glob.escape(str(path.parent))) / line) if is_pattern else str(beside)
