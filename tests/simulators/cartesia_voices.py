"""Cartesia's list of voices: a version and a key are required, 10 voices a page by default, ids as cursors."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response


@dataclass
class CartesiaVoicesSimulator:
    """The account. `voices` are as the vendor shows them; `preview_file_url` comes only when it is asked for."""

    key: str = "sk_car_simulated"
    voices: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    outages: list[int] = field(default_factory=list[int])
    base_url: str = ""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[CartesiaVoicesSimulator]:
        """Serve on a free port of this machine; sets `base_url`."""
        app = FastAPI()
        app.add_api_route("/voices", self._list, methods=["GET"])
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.base_url = f"http://127.0.0.1:{sock.getsockname()[1]}"
            server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
            serving = asyncio.create_task(server._serve([sock]))  # pyright: ignore[reportPrivateUsage]
            try:
                yield self
            finally:
                server.should_exit = True
                await serving

    async def _list(self, request: Request) -> Response:
        if self.outages:
            return _refusal(self.outages.pop(0), "unavailable")
        if not request.headers.get("cartesia-version"):
            return _refusal(400, "Cartesia-Version is required")
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return _refusal(401, "Invalid API key")
        limit = request.query_params.get("limit", "10")
        if not limit.isdecimal() or not 1 <= int(limit) <= 100:
            return _refusal(400, "limit must be between 1 and 100")
        after = request.query_params.get("starting_after")
        ids = [voice["id"] for voice in self.voices]
        start = ids.index(after) + 1 if after else 0
        shown = self.voices[start : start + int(limit)]
        if "preview_file_url" not in request.query_params.getlist("expand[]"):
            shown = [{name: value for name, value in voice.items() if name != "preview_file_url"} for voice in shown]
        more = start + int(limit) < len(self.voices)
        return JSONResponse({"data": shown, "has_more": more, "next_page": shown[-1]["id"] if more else None})


def _refusal(status: int, message: str) -> Response:
    return JSONResponse({"error_code": "refused", "title": message, "message": message, "status_code": status}, status)
