"""ElevenLabs' speech sockets on loopback: strict about what a client sends, obedient about how to misbehave.

    async with ElevenLabsSimulator() as vendor:
        ... ElevenLabsAccess(vendor.key, vendor.ws_url) ...

Serves `multi-stream-input`, the older `stream-input` that the vendor's own package can drive, and the list of voices.
Speech takes 60 ms a character, loud where a letter sounds and silent where a space does, so word times can be checked
against the sound.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import UUID

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.simulators.elevenlabs_session import Connection, Faults, Manner, Session

__all__ = ["ElevenLabsSimulator", "Faults", "Manner"]

OUTPUTS = {"ulaw_8000", *(f"pcm_{rate}" for rate in (8000, 16000, 22050, 24000, 44100))}
_QUERY = {
    "model_id", "output_format", "language_code", "auto_mode", "inactivity_timeout", "sync_alignment",
    "enable_logging", "enable_ssml_parsing", "apply_text_normalization", "seed",
}  # fmt: skip


def _no_faults(_number: int) -> Faults:
    return Faults()


@dataclass
class ElevenLabsSimulator:
    """The server. `faults` is asked for every attempt to connect, counted from 0."""

    faults: Callable[[int], Faults] = _no_faults
    manner: Manner = field(default_factory=Manner)
    key: str = "xi-simulated"
    voices: set[str] = field(default_factory=lambda: {"voice-1"})
    catalogue: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What `GET /v2/voices` lists, each as the vendor shows it."""
    catalogue_outages: list[int] = field(default_factory=list[int])
    """Statuses to answer the next requests for the catalogue with."""
    listings: int = 0
    """How often a page of the catalogue was asked for."""
    connections: list[Connection] = field(default_factory=list[Connection])
    attempts: int = 0

    async def __aenter__(self) -> Self:
        self._faults: dict[UUID, Faults] = {}
        self._server: Server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._handshake, compression=None, close_timeout=0.2
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def drop(self) -> None:
        """Lose every connection there is now, without a word."""
        for connection in self._server.connections:
            connection.transport.abort()

    @property
    def ws_url(self) -> str:
        """The origin clients connect to."""
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"

    @property
    def base_url(self) -> str:
        """The origin for plain HTTP."""
        return self.ws_url.replace("ws", "http", 1)

    def _listing(self, connection: ServerConnection, request: Request) -> Response:
        """One page of the voices: 10 unless told otherwise, at most 100, and a token for the next."""
        self.listings += 1
        query = dict(parse_qsl(urlsplit(request.path).query))
        size, after = query.get("page_size", "10"), query.get("next_page_token", "0")
        status = 200
        if self.catalogue_outages:
            status = self.catalogue_outages.pop(0)
        elif request.headers.get("xi-api-key") != self.key:
            status = 401
        elif not size.isdecimal() or not 1 <= int(size) <= 100 or not after.isdecimal():
            status = 422
        body: dict[str, Any] = {"detail": {"status": "refused", "message": "refused"}}
        if status == 200:
            start, end = int(after), int(after) + int(size)
            more = end < len(self.catalogue)
            body = {
                "voices": self.catalogue[start:end],
                "has_more": more,
                "total_count": len(self.catalogue),
                "next_page_token": str(end) if more else None,
            }
        response = connection.respond(HTTPStatus(status), json.dumps(body))
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        return response

    async def _handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        if urlsplit(request.path).path == "/v2/voices":
            return self._listing(connection, request)
        faults = self._faults[connection.id] = self.faults(self.attempts)
        self.attempts += 1
        await asyncio.sleep(faults.handshake_delay)
        status, name = self._judge(request)
        if faults.handshake_status != 101:
            status, name = faults.handshake_status, "scripted"
        if status == 101:
            return None
        response = connection.respond(HTTPStatus(status), json.dumps({"detail": {"status": name, "message": name}}))
        if faults.retry_after is not None:
            response.headers["Retry-After"] = faults.retry_after
        return response

    def _judge(self, request: Request) -> tuple[int, str]:
        url = urlsplit(request.path)
        query = dict(parse_qsl(url.query))
        path = url.path.split("/")
        if path[:3] != ["", "v1", "text-to-speech"] or path[4:] not in (["multi-stream-input"], ["stream-input"]):
            return 404, "not_found"
        if request.headers.get("xi-api-key") != self.key:
            return 401, "invalid_api_key"
        if unquote(path[3]) not in self.voices:
            return 404, "voice_not_found"
        timeout = query.get("inactivity_timeout", "20")
        model = query.get("model_id", "")
        good = (
            query.keys() <= _QUERY
            and model.startswith("eleven_")
            and query.get("output_format") in OUTPUTS
            and ("language_code" not in query or model.endswith("_v2_5"))
            and timeout.isdecimal()
            and 1 <= int(timeout) <= 180
        )
        return (101, "") if good else (422, "invalid_parameters")

    async def _serve(self, ws: ServerConnection) -> None:
        assert ws.request is not None
        url = urlsplit(ws.request.path)
        _, _, _, voice, kind = url.path.split("/")
        record = Connection(unquote(voice), dict(parse_qsl(url.query)), multi=kind == "multi-stream-input")
        self.connections.append(record)
        with suppress(ConnectionClosed):
            await Session(ws, record, self.manner, self._faults.pop(ws.id)).run()
        record.close_code = ws.close_code
