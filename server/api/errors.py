"""One JSON body for every error of every route, because clients of different ages read different keys of it.

Documented for clients: browser §1.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, TypedDict

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection

from server.store.base import StoreUnavailable

log = structlog.get_logger(__name__)

STORE_RETRY_S: Final = 5
_CODES: Final = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "TOO_LARGE",
    429: "RATE_LIMITED",
}
_FAULTS_TOLD: Final = 3


class ErrorBody(TypedDict):
    """What every reader finds its own key in; `error` and `detail` say the same."""

    success: bool
    error: str
    detail: str
    code: str


def error_body(code: str, detail: str) -> ErrorBody:
    """The body of an error, also where it is not an HTTP answer that carries it."""
    return {"success": False, "error": detail, "detail": detail, "code": code}


class JsonAnswer(JSONResponse):
    """JSON as all routes answer it: UTF-8, unescaped, and said so."""

    media_type = "application/json; charset=utf-8"


class ApiError(Exception):
    """A request is refused. `detail` is shown to whoever asked: nothing secret, nothing of another organisation.

    Raised in a websocket route before `accept`, it refuses the handshake with the same status and body.
    """

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})

    def answer(self) -> JsonAnswer:
        """The refusal, as it is sent."""
        return JsonAnswer(error_body(self.code, self.detail), self.status, self.headers)


def too_many(detail: str, retry_after_s: float) -> ApiError:
    """429. `retry_after_s` is rounded up, at least one second."""
    return ApiError(429, _CODES[429], detail, {"Retry-After": str(max(1, -int(-retry_after_s // 1)))})


def answer_errors(app: FastAPI) -> None:
    """Every error that leaves `app` has the one body; none tells what the code looks like inside."""

    @app.exception_handler(ApiError)
    async def refused(_: HTTPConnection, error: ApiError) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        return error.answer()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: HTTPConnection, error: RequestValidationError) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        return ApiError(400, _CODES[400], _faults(error)).answer()

    @app.exception_handler(HTTPException)
    async def unrouted(_: HTTPConnection, error: HTTPException) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        code = _CODES.get(error.status_code, "BAD_REQUEST" if error.status_code < 500 else "INTERNAL_ERROR")
        return ApiError(error.status_code, code, str(error.detail), error.headers).answer()

    @app.exception_handler(StoreUnavailable)
    async def storeless(_: HTTPConnection, __: StoreUnavailable) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        text = "What gateways share cannot be reached; try again"
        return ApiError(503, "STORE_UNAVAILABLE", text, {"Retry-After": str(STORE_RETRY_S)}).answer()

    @app.exception_handler(ClientDisconnect)
    async def gone(_: HTTPConnection, __: ClientDisconnect) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        # Nobody reads this; but whoever hangs up in the middle of a body is no fault of ours to be logged.
        return ApiError(400, _CODES[400], "The body did not come").answer()

    @app.exception_handler(Exception)
    async def failed(connection: HTTPConnection, error: Exception) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        # The web server logs the error itself, with its trace; this is the line that says which route it was.
        log.error("request_failed", path=connection.scope["path"], error=type(error).__name__)
        text = f"{HTTPStatus.INTERNAL_SERVER_ERROR.phrase}; the gateway's log says why"
        return ApiError(500, "INTERNAL_ERROR", text).answer()


def _faults(error: RequestValidationError) -> str:
    """Which fields are wrong, and how; never what was in them."""
    faults: list[str] = []
    for fault in error.errors()[:_FAULTS_TOLD]:
        where = ".".join(str(part) for part in fault.get("loc", ())[1:])
        said = str(fault.get("msg", "is not as it should be"))
        faults.append(f"{where}: {said}" if where else said)
    return "; ".join(faults) or "The request is not as it should be"
