"""The ASGI application of a service."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from salema.runtime.errors import SalemaError
from salema.runtime.serve.api import Api, answer_error
from salema.runtime.serve.middleware import App, Gate
from salema.runtime.serve.pages import PAGES
from salema.runtime.serve.protocol import first_fault
from salema.runtime.serve.service import Service
from salema.runtime.serve.sockets import Sockets

_OPEN = frozenset({"/", "/login", *(f"/static/{name}" for name in PAGES if not name.endswith(".html"))})


def build_app(service: Service) -> App:
    """Returns the application, with its guard around it."""
    # The pages of the documentation would ask other hosts for their scripts.
    app = FastAPI(title="salema", version=version("salema"), docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(SalemaError, answer_error)
    app.add_exception_handler(RequestValidationError, _answer_wrong_query)
    Api(service).add_to(app)
    sockets = Sockets(service)
    app.add_api_websocket_route("/api/stream", sockets.stream)
    app.add_api_websocket_route("/api/sources/{number}/live", sockets.live)
    return Gate(app, service.guard, _OPEN, lambda why: service.metrics.refused.labels(why).inc())


async def _answer_wrong_query(_: Request, error: Any) -> Response:
    return JSONResponse({"detail": first_fault(error.errors())}, 422)
