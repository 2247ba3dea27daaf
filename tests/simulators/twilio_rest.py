"""Twilio's REST API, as far as calls go: Basic auth, urlencoded bodies, live calls that end, Twilio's own errors.

Strict like the vendor, and checked with the vendor's own Python client in `tests/test_twilio_rest.py`.
"""

from __future__ import annotations

import asyncio
import socket
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hmac import compare_digest
from urllib.parse import parse_qsl

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

_LIVE = ("queued", "ringing", "in-progress")


@dataclass
class SimulatedTwilioRest:
    """An account. `calls` maps call SIDs to their status; tests put calls in and see what became of them."""

    account_sid: str = "AC" + "0" * 32
    auth_token: str = "simulated-token"
    calls: dict[str, str] = field(default_factory=dict[str, str])
    twiml: dict[str, str] = field(default_factory=dict[str, str])
    requests: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    outages: list[int] = field(default_factory=list[int])
    """Statuses to answer the next requests with instead of doing the work (500, 503, 429)."""
    stalled: bool = False
    """Take requests and never answer."""
    base_url: str = ""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[SimulatedTwilioRest]:
        """Serve on a free port of this machine; sets `base_url`."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.base_url = f"http://127.0.0.1:{sock.getsockname()[1]}"
            config = uvicorn.Config(self._app(), lifespan="off", log_config=None, timeout_graceful_shutdown=1)
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server._serve([sock]))  # pyright: ignore[reportPrivateUsage]
            try:
                async with asyncio.timeout(10):
                    while not server.started:  # noqa: ASYNC110 - uvicorn has nothing to wait for
                        await asyncio.sleep(0.01)
                yield self
            finally:
                server.should_exit = True
                await serving

    def _app(self) -> FastAPI:
        app = FastAPI()
        path = "/2010-04-01/Accounts/{account_sid}/Calls/{call_sid}.json"
        app.add_api_route(path, self._fetch, methods=["GET"])
        app.add_api_route(path, self._update, methods=["POST"])
        return app

    async def _fetch(self, request: Request, account_sid: str, call_sid: str) -> Response:
        return await self._refusal(request, account_sid, call_sid) or self._call(call_sid)

    async def _update(self, request: Request, account_sid: str, call_sid: str) -> Response:
        refusal = await self._refusal(request, account_sid, call_sid)
        if refusal is not None:
            return refusal
        if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
            return _problem(400, 20001, "Unsupported content type")
        form = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
        if self.calls[call_sid] not in _LIVE:
            return _problem(400, 21220, "Call is not in-progress. Cannot redirect.")
        if "Twiml" in form:
            self.twiml[call_sid] = form["Twiml"]
            return self._call(call_sid)
        status = form.get("Status")
        if status == "canceled" and self.calls[call_sid] == "in-progress":
            return _problem(400, 21220, "Call is in-progress. Cannot cancel.")
        if status not in ("completed", "canceled"):
            return _problem(400, 21218, "Invalid Status")
        self.calls[call_sid] = status
        return self._call(call_sid)

    async def _refusal(self, request: Request, account_sid: str, call_sid: str) -> Response | None:
        self.requests.append((request.method, call_sid))
        if self.stalled:
            await asyncio.sleep(60)
        if self.outages:
            status = self.outages.pop(0)
            return _problem(status, 20429 if status == 429 else 20500, "Simulated outage")
        expected = "Basic " + b64encode(f"{self.account_sid}:{self.auth_token}".encode()).decode()
        given = request.headers.get("authorization", "")
        if account_sid != self.account_sid or not compare_digest(given.encode(), expected.encode()):
            return _problem(401, 20003, "Authenticate")
        if call_sid not in self.calls:
            return _problem(404, 20404, f"The requested resource {request.url.path} was not found")
        return None

    def _call(self, call_sid: str) -> Response:
        body = {
            "sid": call_sid,
            "account_sid": self.account_sid,
            "api_version": "2010-04-01",
            "status": self.calls[call_sid],
            "direction": "inbound",
            "price": None,
            "uri": f"/2010-04-01/Accounts/{self.account_sid}/Calls/{call_sid}.json",
        }
        return JSONResponse(body)


def _problem(status: int, code: int, message: str) -> Response:
    more = f"https://www.twilio.com/docs/errors/{code}"
    return JSONResponse({"code": code, "message": message, "more_info": more, "status": status}, status)
