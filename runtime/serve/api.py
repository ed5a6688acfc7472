"""The HTTP routes: the page, a source's pictures and maps, one image, health, metrics."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Mapping
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import parse_qs

from anyio import fail_after
from fastapi import Depends, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST

from salema.runtime.errors import SalemaError, UsageError, VideoError
from salema.runtime.postprocess import COLORMAPS, NORMALISATIONS, VIEWS, Look, Normalise, View
from salema.runtime.serve.guard import COOKIE, COOKIE_AGE_S, Receive, Scope, Send
from salema.runtime.serve.protocol import Settings, Upload
from salema.runtime.serve.results import MIME, Form, Result
from salema.runtime.serve.service import Service, limiter
from salema.runtime.serve.source_streams import SourceStream

_MOST_LOGIN_BYTES = 4096
_WRONG_TOKEN_WAIT_S = 0.5
_BOUNDARY = "salema"
_IMAGE_BODY: dict[str, Any] = {
    "requestBody": {"content": {kind: {} for kind in ("image/jpeg", "image/png", "image/webp")}}
}

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_NAMES = ("index.html", "login.html", "app.js", "style.css", "icon.svg")


def _read(name: str) -> tuple[str, bytes]:
    return _KINDS[name.rpartition(".")[2]], files("salema.runtime.serve").joinpath("page", name).read_bytes()


PAGES: Mapping[str, tuple[str, bytes]] = {name: _read(name) for name in _NAMES}
"""The media type and the content of each file, by its name."""


class RequestError(SalemaError):
    """A request that is refused, with its HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def look_of(
    view: View = "overlay", normalise: Normalise = "frame", colormap: str = "jet", opacity: float = 0.5
) -> Look:
    """Returns the look that a request's query asks for."""
    return Look(view, normalise, colormap, opacity)


Looks = Annotated[Look, Depends(look_of)]


class _Watched(StreamingResponse):
    """A source's pictures; who gets them is counted for as long as they are sent."""

    def __init__(self, service: Service, parts: AsyncIterator[bytes], media_type: str) -> None:
        super().__init__(parts, media_type=media_type)
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._service.viewing():
            await super().__call__(scope, receive, send)


class Api:
    """The HTTP routes of a service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._limiter_of = functools.lru_cache(1024)(lambda _: limiter(service.limits.max_fps))

    def add_to(self, app: Any) -> None:
        """Adds the routes to a FastAPI application."""
        hidden: dict[str, Any] = {"include_in_schema": False}
        app.add_api_route("/", self.page, **hidden)
        app.add_api_route("/login", self.log_in, methods=["POST"], **hidden)
        app.add_api_route("/static/{name}", self.static, **hidden)
        app.add_api_route("/healthz", self.healthz)
        app.add_api_route("/readyz", self.readyz)
        app.add_api_route("/metrics", self.metrics, response_class=Response)
        app.add_api_route("/api/status", self.status)
        app.add_api_route("/api/sources/{number}/picture", self.picture, response_class=Response)
        app.add_api_route("/api/sources/{number}/map", self.map, response_class=Response)
        app.add_api_route("/api/sources/{number}/mjpeg", self.mjpeg, response_class=Response)
        more: dict[str, Any] = {"methods": ["POST"], "response_class": Response, "openapi_extra": _IMAGE_BODY}
        app.add_api_route("/api/image", self.image, **more)

    async def page(self, request: Request) -> Response:
        """Gives the page, or the form that asks for the token."""
        return _static("index.html" if request.state.known else "login.html")

    async def static(self, name: str) -> Response:
        """Gives one of the page's files, which are in memory."""
        if name not in PAGES:
            raise RequestError(404, "no such file")
        return _static(name)

    async def log_in(self, request: Request) -> Response:
        """Takes the token from the form, and gives a cookie."""
        body = await self._body(request, _MOST_LOGIN_BYTES)
        (token,) = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[:1]
        guard = self._service.guard
        if not guard.is_token(token.strip()):
            self._service.metrics.refused.labels("token").inc()
            await asyncio.sleep(_WRONG_TOKEN_WAIT_S)
            return RedirectResponse("/#wrong", 303)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE,
            guard.new_cookie(),
            max_age=COOKIE_AGE_S,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    async def healthz(self) -> dict[str, str]:
        """Says that the server answers."""
        return {"status": "ok"}

    async def readyz(self) -> Response:
        """Says whether the server gives maps; 503 while it doesn't."""
        ready = self._service.is_ready
        return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    async def metrics(self) -> Response:
        """Gives the metrics, as Prometheus reads them."""
        return Response(self._service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def status(self) -> dict[str, Any]:
        """Says what runs where, what the sources do, and the limits."""
        spec, limits = self._service.model.spec, self._service.limits
        return {
            "model": spec.weights,
            "trained": spec.trained,
            "backend": self._service.model.description,
            "map_hw": [spec.height, spec.width],
            "views": VIEWS,
            "normalisations": NORMALISATIONS,
            "colormaps": sorted(COLORMAPS),
            "limits": {"max_bytes": limits.max_bytes, "max_fps": limits.max_fps, "picture_side": limits.picture_side},
            "sources": [_facts(number, source) for number, source in enumerate(self._service.sources)],
        }

    async def picture(self, number: int, look: Looks) -> Response:
        """Gives a source's newest picture, as JPEG."""
        with self._service.viewing():
            return await self._encoded(self._newest(number), "jpeg", look)

    async def map(self, number: int, look: Looks, form: Form = "png") -> Response:
        """Gives a source's newest map: its levels as PNG, or raw as float16, row by row."""
        if form == "jpeg":
            raise UsageError("form=jpeg: a map is png or float16; for the picture there is /picture")
        with self._service.viewing():
            return await self._encoded(self._newest(number), form, look)

    async def mjpeg(self, number: int, look: Looks) -> Response:
        """Gives a source's pictures one after the other, for an <img>; those who read slowly get fewer."""
        parts = self._parts(self._service.source(number), look)
        return _Watched(self._service, parts, media_type=f"multipart/x-mixed-replace; boundary={_BOUNDARY}")

    async def image(self, request: Request, look: Looks, form: Form = "jpeg") -> Response:
        """Gives the result of one image (JPEG, PNG or WebP), by itself: as a picture, a map or raw."""
        arrived_s = time.monotonic()
        pace = self._limiter_of(request.client.host if request.client else "")
        if not pace.has_capacity():
            raise RequestError(429, f"more than {self._service.limits.max_fps:g} images a second; send fewer")
        await pace.acquire()
        with self._service.sending():
            data = await self._body(request, self._service.limits.max_bytes)
            upload = Upload(data, self._service.limits, Settings(form, look))
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(self._service.steppers, self._service.step_image, upload, arrived_s)
            return await self._encoded(result, form, look)

    async def _parts(self, source: SourceStream, look: Look) -> AsyncIterator[bytes]:
        yield f"--{_BOUNDARY}\r\n".encode()
        number = 0
        while (result := await source.stream.latest.after(number)) is not None:
            assert isinstance(result, Result)
            number = result.number
            picture = await self._run(result, "jpeg", look)
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            yield head.encode() + picture + f"\r\n--{_BOUNDARY}\r\n".encode()  # browsers wait for the boundary

    async def _run(self, result: Result, form: Form, look: Look) -> bytes:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._service.workers, result.encoded, form, look)

    async def _encoded(self, result: Result, form: Form, look: Look) -> Response:
        height, width = result.saliency.shape
        facts = {"X-Frame": str(result.number), "X-Map-Height": str(height), "X-Map-Width": str(width)}
        return Response(await self._run(result, form, look), media_type=MIME[form], headers=facts)

    def _newest(self, number: int) -> Result:
        source = self._service.source(number)
        result = source.stream.latest.item
        if not isinstance(result, Result):
            raise RequestError(503, source.problem or f"source {number} has given no frame yet")
        return result

    async def _body(self, request: Request, most_bytes: int) -> bytes:
        """Reads a request's body, of so many bytes and in so much time at most."""
        too_large = RequestError(413, f"more than {most_bytes} bytes (--max-mb)")
        declared = request.headers.get("content-length", "0")
        if not declared.isdigit() or int(declared) > most_bytes:
            raise too_large
        data = bytearray()
        try:
            with fail_after(self._service.limits.idle_s):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > most_bytes:
                        raise too_large
            return bytes(data)
        except TimeoutError:
            raise RequestError(408, f"the body did not come within {self._service.limits.idle_s:g} s") from None


async def answer_error(_: Request, error: Exception) -> Response:
    """Answers with the sentence of one of our errors."""
    status = getattr(error, "status", 422 if isinstance(error, UsageError | VideoError) else 500)
    again = {"Retry-After": "1"} if status in {429, 503} else None
    return JSONResponse({"detail": str(error)}, status, again)


def _facts(number: int, source: SourceStream) -> dict[str, Any]:
    result = source.stream.latest.item
    size = list(result.image_bgr.shape[:2]) if isinstance(result, Result) else None
    return {
        "number": number,
        "name": source.source.name,
        "source": source.source.shown,
        "state": source.state,
        "problem": source.problem,
        "picture_hw": size,
        **source.stream.pace.summary(),
    }


def _static(name: str) -> Response:
    kind, data = PAGES[name]
    return Response(data, media_type=kind)
