"""A whole gateway as browsers and backends meet it: HTTP, agents of two organisations, everything that was logged."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from structlog.testing import capture_logs
from websockets.asyncio.client import connect

from server.app import GatewayServer, create_server
from server.auth import Keys
from server.engines import Engines
from server.gateway import Gateway
from server.settings import Settings
from tests.client_rig import Client

KEY_A = "pk_live_aaaa_the_key_of_org_a_zzzz"
KEY_B = "pk_live_bbbb_the_key_of_org_b_yyyy"
PUBLISHABLE_A = "pk_publishable_aaaa_of_org_a_xxxx"
PUBLISHABLE_B = "pk_publishable_bbbb_of_org_b_wwww"
KEYS = (("org_a", KEY_A), ("org_b", KEY_B), ("org_a", PUBLISHABLE_A), ("org_b", PUBLISHABLE_B))
ORIGINS = ("https://app.site.com", "https://*.site.com", "http://localhost:*")

Headers = dict[str, str] | Sequence[tuple[str, str]]


@dataclass
class Door:
    """A running gateway. `http` follows no redirect."""

    server: GatewayServer
    port: int
    http: httpx2.AsyncClient
    stack: AsyncExitStack

    @property
    def gateway(self) -> Gateway:
        assert self.server.gateway is not None
        return self.server.gateway

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def connected(self, key: str = KEY_A) -> Client:
        """An SDK connection."""
        socket = await self.stack.enter_async_context(connect(f"ws://127.0.0.1:{self.port}/client", max_size=None))
        client = Client(socket)
        assert (await client.ask("connect", api_key=key))["event"] == "connected"
        return client

    async def agent(self, agent_id: str = "mara", key: str = KEY_A, origins: tuple[str, ...] = ORIGINS) -> Client:
        """A connection with one agent that pages of these origins may talk to."""
        client = await self.connected(key)
        created = await client.ask("agent.create", agent_id=agent_id, allowed_origins=list(origins))
        assert created["event"] == "agent.created", created
        return client

    async def mint(
        self, channel: str = "webrtc", key: str | None = KEY_A, headers: Headers = (), **query: str
    ) -> httpx2.Response:
        """Ask for a token as SDKs and pages do."""
        sent = list(headers.items() if isinstance(headers, dict) else headers)
        if key is not None:
            sent.append(("Authorization", f"Bearer {key}"))
        return await self.http.get(f"/{channel}/token", params={"agent_id": "mara", **query}, headers=sent)

    async def page(self, origin: str, channel: str = "webrtc", **query: str) -> httpx2.Response:
        """Ask for a token as a page of that origin does."""
        return await self.mint(channel, None, {"Origin": origin}, **query)


@asynccontextmanager
async def opened(**settings: Any) -> AsyncGenerator[Door]:
    """A gateway on a free port, with the keys of two organisations."""
    config = Settings(_env_file=None, **{"port": 0, **settings})  # pyright: ignore[reportCallIssue]
    server = create_server(config, Keys(KEYS), Engines(config))
    serving = asyncio.create_task(server.serve())
    for _ in range(1000):
        if server.started or serving.done():
            break
        await asyncio.sleep(0.01)
    assert server.started
    port = server.servers[0].sockets[0].getsockname()[1]
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}"))
        try:
            yield Door(server, port, http, stack)
        finally:
            await stack.aclose()
            server.should_exit = True
            await serving


class Overheard(logging.Handler):
    """Every line that the gateway logs, at every level and to whichever logger, as one text."""

    _CLIENTS = ("httpx2", "httpcore2", "websockets.client")
    """The other end, which is this test."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self._lines: list[str] = []
        self._structured: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(self._CLIENTS):
            self._lines.append(f"{self.format(record)} {record.__dict__}")

    @property
    def text(self) -> str:
        return "\n".join([*self._lines, *(json.dumps(line, default=repr) for line in self._structured)])

    @classmethod
    @asynccontextmanager
    async def everything(cls) -> AsyncGenerator[Overheard]:
        """Listen from here on, at level debug."""
        heard = cls()
        loggers = [logging.getLogger(name) for name in (None, "uvicorn", "uvicorn.error", "uvicorn.access")]
        level = loggers[0].level
        loggers[0].setLevel(logging.DEBUG)
        for logger in loggers:
            logger.addHandler(heard)
        try:
            with capture_logs() as structured:
                heard._structured = structured
                yield heard
        finally:
            for logger in loggers:
                logger.removeHandler(heard)
            loggers[0].setLevel(level)
