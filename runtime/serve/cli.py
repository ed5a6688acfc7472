"""`salema-serve`: a page, and an interface for programs, with the maps of cameras and of what browsers send."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salema.runtime.cli.options import BackendOption, DeviceOption, takes_options
from salema.runtime.cli.start import run_app, run_process
from salema.runtime.errors import MissingDependencyError, ModelError, UsageError, exit_on_error
from salema.runtime.serve.limits import Limits

if TYPE_CHECKING:
    from salema.runtime.serve.server import Tls

_MODEL = Path("salema-model")
_LIBRARIES = ("aiolimiter", "anyio", "fastapi", "prometheus_client", "uvicorn", "websockets")

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
@takes_options
def serve(
    *,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Video, folder of frames, camera number, URL or GStreamer pipeline to show; can be repeated."
            " Without, the page takes the visitor's camera and files.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[Path, typer.Option(help="Folder that salema-export wrote.", readable=False)] = _MODEL,
    host: Annotated[str, typer.Option(help="Address to listen at; all but this machine's own want a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen at; 0 for any that is free.")] = 8008,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that clients must know.", show_default=False)
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name of this server; can be repeated.", show_default=False),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Origin of other pages that may use it; can be repeated.", show_default=False),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Certificate for HTTPS (PEM), with --key.", show_default=False)
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The certificate's key (PEM).", show_default=False)] = None,
    every_frame: Annotated[
        bool, typer.Option("--every-frame", help="Run every frame of the sources, however late they get.")
    ] = False,
    fps: Annotated[float, typer.Option(help="Frames per second of folders of images.")] = 25,
    live: Annotated[bool, typer.Option("--live", help="Treat URLs without a length as live.")] = False,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", help="Threads of the network on the CPU [default: one for each core it may use]."),
    ] = None,
    max_wait_ms: Annotated[
        float, typer.Option(metavar="MS", help="How long a frame waits for those of other streams to share a batch.")
    ] = 20,
    limits: Limits,
) -> None:
    """Serve a page that shows the saliency of cameras and videos as they come, and an interface for programs."""
    with exit_on_error("salema-serve", "give a --model exported with a smaller --imgsz"):
        check_libraries()
        from salema.runtime.cli.opening import Opening
        from salema.runtime.serve.running import Access, run_server
        from salema.runtime.sources.selection import Selection

        if model == _MODEL and not model.exists():
            raise ModelError(f"{model}: no such folder; make it with: salema-export --weights nano")
        access = Access(host, port, token_file, tuple(allow_host or ()), tuple(allow_origin or ()))
        selection = Selection(every_frame=every_frame, fps=fps, live=live)
        opening = Opening(model, backend, device, threads=threads)
        tls = _tls(certificate, key)
        run_server(source or [], selection, opening, access, limits, tls, max_wait_ms=max_wait_ms)


def check_libraries() -> None:
    """Refuses to start without the libraries of the extra.

    Raises:
        MissingDependencyError: one is not installed.
    """
    from importlib.util import find_spec

    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(f"{', '.join(missing)} not installed; install: pip install 'salema[serve]'")


def _tls(certificate: Path | None, key: Path | None) -> Tls | None:
    from salema.runtime.serve.server import Tls

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError("--certificate and --key go together; give both, or neither")
    return Tls(certificate, key)


def main() -> None:
    """Runs the command."""
    run_app(app, "salema-serve")


def main_of_process() -> None:
    """Runs the command; see `run_process`."""
    run_process(main)
