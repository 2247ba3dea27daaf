"""The server: one port, and behind it a gateway with all its doors."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, WebSocket
from picows import WSListener, WSUpgradeRequest, WSUpgradeResponseWithListener

from server.agents.endpoint import ObservedWebSocket, serve_agent
from server.agents.link import MAX_FRAME
from server.api.address import BehindProxies
from server.api.cors import Cors
from server.api.errors import answer_errors
from server.api.openapi import describe_truly
from server.auth import Keys
from server.demo_agent import DemoAgent
from server.doors import open_doors
from server.engines import CallEngines
from server.gateway import Gateway
from server.logs import log_no_requests
from server.organisations.sources import OrganisationSources
from server.settings import Settings
from server.starting import check_store, hold_music
from server.switchboard import switchboard_protocol


class GatewayServer(uvicorn.Server):
    """uvicorn that knows its gateway: calls end before the sockets their last events need."""

    gateway: Gateway | None = None
    demo: DemoAgent | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; a port that the system chose becomes part of our own address."""
        await super().startup(sockets)
        if self.gateway is not None and self.servers and self.servers[0].sockets:
            port = self.servers[0].sockets[0].getsockname()[1]
            self.gateway.listens_on(port)
            if self.demo is not None:
                self.demo.listens_on(port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving: calls, then agents, then HTTP."""
        if self.gateway is not None:
            await self.gateway.stop()
        await super().shutdown(sockets)


def create_server(settings: Settings, keys: Keys, engines: CallEngines) -> GatewayServer:
    """A server that is ready to `serve()`. Its gateway comes to life with it, inside the event loop.

    Raises SettingsError for a setting that names something unusable.
    """
    music = hold_music(settings)
    check_store(settings)
    sources = OrganisationSources(settings, keys)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        gateway = server.gateway = Gateway(settings, sources, engines, music)
        open_doors(app, gateway)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(gateway.run(), name="gateway")
            demo = None if server.demo is None else tasks.create_task(server.demo.run(), name="demo agent")
            yield
            await gateway.stop()
            if demo is not None:
                demo.cancel()

    app = FastAPI(
        title="Voice gateway",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a client of an API does not follow, and may lose its key if it does
    )
    answer_errors(app)
    describe_truly(app)

    @app.websocket("/client")
    async def client(websocket: WebSocket) -> None:  # pyright: ignore[reportUnusedFunction]
        assert server.gateway is not None
        await serve_agent(websocket, server.gateway.agents)

    def accept(request: WSUpgradeRequest, peer: str) -> WSListener | WSUpgradeResponseWithListener | None:
        return None if server.gateway is None else server.gateway.accept_stream(request, peer)

    log_no_requests()
    config = uvicorn.Config(
        BehindProxies(Cors(app), settings.forwarded_allow_ips),
        host=settings.host,
        port=settings.port,
        http=switchboard_protocol(accept),
        ws=ObservedWebSocket,
        ws_ping_interval=None,
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,
        proxy_headers=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=5,
    )
    server = GatewayServer(config)
    return server
