"""A real gateway for agents on a real socket, a client for it, and a call that writes down what it is told."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from pipelines.clock import LoopClock
from server.agents.agent import RegistryTimes
from server.agents.calls import EventSink
from server.agents.configuration import ConfigRules
from server.agents.dispatch import AgentGateway
from server.agents.endpoint import ObservedWebSocket, serve_agent
from server.agents.link import MAX_FRAME, LinkTimes
from server.agents.registry import AgentRegistry
from server.auth import Keys
from server.organisations.directory import Organisations
from server.routing import Router
from server.store.memory import MemoryStore
from wire.commands import CallCommand
from wire.events import CallEnded, CallStarted
from wire.layers import Layer

KEY = "pk_live_the_key_of_org_main"
OTHER_KEY = "pk_live_the_key_of_org_two"
PATIENCE = 5.0
Frame = dict[str, Any]


def any_layers(org_id: str, layers: Sequence[Layer]) -> None:
    """This server can serve whatever is asked for."""


def new_registry(times: RegistryTimes | None = None) -> AgentRegistry:
    clock = LoopClock()
    return AgentRegistry(MemoryStore(clock.now), clock, ConfigRules(any_layers), times)


@dataclass
class Client:
    """One SDK connection, frame by frame."""

    socket: ClientConnection

    async def send(self, event: str, **fields: object) -> None:
        await self.socket.send(json.dumps({"event": event, **fields}))

    async def receive(self) -> Frame:
        """The next frame that is not a ping."""
        while True:
            frame = await self.receive_any()
            if frame["event"] != "ping":
                return frame

    async def receive_any(self) -> Frame:
        async with asyncio.timeout(PATIENCE):
            return json.loads(await self.socket.recv())

    async def ask(self, event: str, **fields: object) -> Frame:
        await self.send(event, **fields)
        return await self.receive()

    async def silence(self) -> None:
        """Nothing has come since: a ping is answered by the next frame."""
        assert (await self.ask("ping"))["event"] == "pong"

    async def closed(self) -> tuple[int, str]:
        """Wait for the close; answers its code and reason. Frames that come before are passed over."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    await self.socket.recv()
        except ConnectionClosed as closed:
            return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd is not None else (1006, "")


@dataclass
class Rig:
    url: str
    gateway: AgentGateway
    registry: AgentRegistry
    router: Router
    organisations: Organisations

    def open(self, **options: Any) -> connect:
        return connect(self.url, max_size=None, **options)

    async def connected(self, key: str = KEY, **options: Any) -> Client:
        """A client that has shown its key; close it by `vanish` or `goodbye`, or leave it to the rig's end."""
        client = Client(await self.open(**options))
        await client.send("connect", api_key=key)
        assert (await client.receive())["event"] == "connected"
        return client

    async def agent(self, agent_id: str, *numbers: str, key: str = KEY) -> Client:
        """A connection with one agent on some numbers."""
        client = await self.connected(key)
        assert (await client.ask("agent.create", agent_id=agent_id))["event"] == "agent.created"
        for number in numbers:
            added = await client.ask("channel.add", agent_id=agent_id, type="phone", ref=number)
            assert added["event"] == "channel.added", added
        return client

    async def until_offline(self, links: int = 0, patience: float = PATIENCE) -> None:
        """Wait until the gateway has seen all but so many connections go."""
        for _ in range(500):
            if len(self.gateway) <= links:
                return
            await asyncio.sleep(patience / 500)
        raise TimeoutError(f"{len(self.gateway)} connections are still there")


def vanish(client: Client) -> None:
    """The program dies: its TCP connection is reset without a closing handshake."""
    client.socket.transport.abort()


async def goodbye(client: Client) -> None:
    await client.socket.close(1000, "client_disconnect")


@asynccontextmanager
async def running(links: LinkTimes | None = None, agents: RegistryTimes | None = None) -> AsyncGenerator[Rig]:
    registry = new_registry(agents)
    keys = Keys([("org_main", KEY), ("org_two", OTHER_KEY)])
    organisations = Organisations(keys)
    gateway = AgentGateway(organisations, registry, registry.clock, links)

    async def client(websocket: WebSocket) -> None:
        await serve_agent(websocket, gateway)

    app = Starlette(routes=[WebSocketRoute("/client", client)])
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        ws=ObservedWebSocket,
        ws_ping_interval=None,
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,
        lifespan="off",
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve())
        clockwork = tasks.create_task(registry.run())
        for _ in range(1000):
            if server.started:
                break
            await asyncio.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield Rig(f"ws://127.0.0.1:{port}/client", gateway, registry, Router(registry), organisations)
        finally:
            server.should_exit = True
            await serving
            clockwork.cancel()


@dataclass
class RecordedCall:
    """A `LiveCall` without media: it says that it began and ended, and keeps what it was told."""

    slug: str
    org_id: str = "org_main"
    call_id: str = field(default_factory=lambda: "CA" + secrets.token_hex(8))
    commands: list[CallCommand] = field(default_factory=list[CallCommand])
    sink: EventSink | None = None
    agent_id: str = ""
    ended: str = ""

    def attach(self, sink: EventSink, agent_id: str) -> None:
        resumed = CallStarted(
            from_="+15550001111",
            to="+13186330963",
            direction="inbound",
            transport="phone",
            metadata={},
            language="en",
            resumed=True,
            agent_id=agent_id,
            call_id=self.call_id,
        )
        self.sink, self.agent_id = sink, agent_id
        sink.deliver(resumed)

    def detach(self) -> None:
        self.sink = None

    def command(self, command: CallCommand) -> None:
        self.commands.append(command)

    def end(self, reason: str) -> None:
        if self.ended:
            return
        self.ended = reason
        if self.sink is not None:
            ended = CallEnded(
                reason=reason,
                from_="+15550001111",
                to="+13186330963",
                direction="inbound",
                metadata={},
                messages=[],
                duration_seconds=1.0,
                started_at=1.0,
                ended_at=2.0,
                agent_id=self.agent_id,
                call_id=self.call_id,
            )
            self.sink.deliver(ended)
