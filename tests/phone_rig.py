"""A whole gateway with its vendors simulated on their wire, an agent on a socket and a telephone: calls end to end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from demo.caller import SoftwareCaller
from demo.dialling import Dial
from server.app import GatewayServer, create_server
from server.auth import Keys
from server.engines import CallEngines, Engines
from server.gateway import Gateway
from server.settings import Settings
from tests.frame_log import PATIENCE as PATIENCE
from tests.frame_log import Frame as Frame
from tests.frame_log import FrameLog
from tests.simulators.deepgram_flux import FluxSimulator
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.elevenlabs import ElevenLabsSimulator
from tests.simulators.openai import KEY as OPENAI_KEY
from tests.simulators.openai import OpenAiSimulator, Reply
from tests.speech import say_mulaw, silence_mulaw
from tests.virtual_time import VirtualTimeLoop

KEY = "pk_test_phone_rig_0001"
OTHER_KEY = "pk_test_phone_rig_0002"
"""Of another organisation, `org_two`."""
NUMBER = "+13186330963"
MAX_LEAD_MS = 200
"""How far ahead of real time audio may be sent to a carrier (behaviour §3.2)."""


def names(frames: list[Frame]) -> list[str]:
    """Event names, in order."""
    return [frame["event"] for frame in frames]


@dataclass
class Agent(FrameLog):
    """An SDK connection that writes down every frame and can wait for the next one of a kind."""

    socket: ClientConnection

    async def listen(self) -> None:
        with suppress(ConnectionClosed):
            async for text in self.socket:
                frame = json.loads(text)
                if frame["event"] == "ping":
                    await self.send("pong")
                    continue
                self.note(frame)

    def drop(self) -> None:
        """Lose the connection without a word."""
        self.socket.transport.abort()

    async def send(self, event: str, **fields: object) -> None:
        await self.socket.send(json.dumps({"event": event, **fields}))

    async def told(self, call_id: str, event: str, patience: float = PATIENCE) -> Frame:
        """The first frame of that kind about that call, be it here already or not: for several calls at once."""
        async with asyncio.timeout(patience):
            while (frame := next((f for f in self.of_call(call_id) if f["event"] == event), None)) is None:
                await self.more()
        return frame

    async def ask(self, event: str, answer: str, **fields: object) -> Frame:
        await self.send(event, **fields)
        return await self.wait(answer)

    async def say(self, call_id: str, text: str, message_id: str = "", in_reply_to: str = "") -> None:
        await self.send("bot.reply", call_id=call_id, text=text, message_id=message_id, in_reply_to=in_reply_to)

    def of_call(self, call_id: str) -> list[Frame]:
        return [frame for frame in self.frames if frame.get("call_id") == call_id]

    def count(self, event: str) -> int:
        return names(self.frames).count(event)


@dataclass
class Vendors:
    """The simulators a rig runs with."""

    flux: FluxSimulator
    voice: ElevenLabsSimulator
    model: OpenAiSimulator


@dataclass
class Rig:
    """A running gateway."""

    server: GatewayServer
    vendors: Vendors
    port: int
    stack: AsyncExitStack
    callers: list[SoftwareCaller] = field(default_factory=list[SoftwareCaller])

    @property
    def gateway(self) -> Gateway:
        assert self.server.gateway is not None
        return self.server.gateway

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def connected(self, key: str = KEY, org_id: str = "org_main") -> Agent:
        """A connection that has shown its key."""
        socket = await self.stack.enter_async_context(connect(f"ws://127.0.0.1:{self.port}/client", max_size=None))
        agent = Agent(socket)
        listening = asyncio.create_task(agent.listen())
        self.stack.callback(listening.cancel)
        assert (await agent.ask("connect", "connected", api_key=key))["org_id"] == org_id
        return agent

    async def agent(self, agent_id: str = "mara", *numbers: str, **config: object) -> Agent:
        """A connection with one agent on some numbers (NUMBER when none is named)."""
        agent = await self.connected()
        config = {"voice": "elevenlabs:voice-1", "stt": "deepgram-flux", **config}
        await agent.ask("agent.create", "agent.created", agent_id=agent_id, **config)
        for number in numbers or (NUMBER,):
            await agent.ask("channel.add", "channel.added", agent_id=agent_id, type="phone", ref=number)
        return agent

    async def caller(self, to: str = NUMBER, caller: str = "+15550100199", lead: float | None = 250) -> SoftwareCaller:
        """A telephone that has not rung yet; it hangs up when the rig ends."""
        return await self.dialling(Dial(self.http, to, caller), lead)

    async def dialling(self, dial: Dial, lead: float | None = 250) -> SoftwareCaller:
        """A telephone that is about to dial just that."""
        telephone = await self.stack.enter_async_context(SoftwareCaller(dial, max_lead_ms=lead))
        self.callers.append(telephone)
        return telephone

    async def call(self, agent: Agent, to: str = NUMBER) -> tuple[SoftwareCaller, str]:
        """A call that has been answered, and its id."""
        caller = await self.caller(to)
        await caller.ring()
        return caller, (await agent.wait("call.started"))["call_id"]

    async def wind_up(self) -> None:
        """Everybody hangs up; 2 s later nothing of any call is left, here or at a vendor, and none was rushed."""
        for caller in self.callers:
            await caller.hang_up()
        for _ in range(100):
            if not any(self.leftovers().values()):
                break
            await asyncio.sleep(0.02)
        assert not any(self.leftovers().values()), self.leftovers()
        if isinstance(asyncio.get_running_loop(), VirtualTimeLoop):
            # In real time a caller that shares this busy loop gets its first frame late, and takes the next for early.
            assert all(caller.max_lead_seen_ms <= MAX_LEAD_MS for caller in self.callers)

    def leftovers(self) -> dict[str, int]:
        """What calls hold now, counted."""
        return {
            "calls": len(self.gateway.calls),
            "expected calls": self.gateway.calls.expecting,
            "calls that agents can reach": len(self.gateway.registry.calls),
            "recogniser sockets": sum(not one.closed.is_set() for one in self.vendors.flux.connections),
            "voice sockets": sum(one.close_code is None for one in self.vendors.voice.connections),
        }


def spoken(text: str) -> bytes:
    """A sentence as the telephone carries it, with the quiet after it that ends a turn."""
    return say_mulaw(text) + silence_mulaw(900)


BuildEngines = Callable[[Settings], CallEngines]


def no_answer(*_: object) -> Reply:
    """A model that is not expected to be asked."""
    return Reply("I have nothing to say.")


@asynccontextmanager
async def running(
    script: list[Say] | None = None,
    model: Any = no_answer,
    engines: BuildEngines = Engines,
    **settings: Any,
) -> AsyncGenerator[Rig]:
    """A gateway on a free port; Flux hears `script`, the model answers by `model`."""
    async with AsyncExitStack() as stack:
        flux = await stack.enter_async_context(FluxSimulator(script or [], rewind=True))
        voice = await stack.enter_async_context(ElevenLabsSimulator())
        llm = await stack.enter_async_context(OpenAiSimulator(model))
        chosen: dict[str, Any] = {
            "port": 0,
            "deepgram_api_key": "dg-test-key",
            "deepgram_ws_url": flux.url,
            "elevenlabs_api_key": voice.key,
            "elevenlabs_ws_url": voice.ws_url,
            "elevenlabs_base_url": voice.base_url,
            "openai_api_key": OPENAI_KEY,
            "openai_base_url": llm.base_url,
            **settings,
        }
        config = Settings(_env_file=None, **chosen)  # pyright: ignore[reportCallIssue]
        server = create_server(config, Keys([("org_main", KEY), ("org_two", OTHER_KEY)]), engines(config))
        serving = asyncio.create_task(server.serve())
        await _started(server, serving)
        rig = Rig(server, Vendors(flux, voice, llm), server.servers[0].sockets[0].getsockname()[1], stack)
        try:
            yield rig
            await rig.wind_up()
        finally:
            await stack.aclose()
            server.should_exit = True
            await serving


async def _started(server: GatewayServer, serving: asyncio.Task[None]) -> None:
    for _ in range(1000):
        if server.started or serving.done():
            break
        await asyncio.sleep(0.01)
    if serving.done():
        await serving
    assert server.started
