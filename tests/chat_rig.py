"""A whole gateway with chat pages: websockets of browsers, frame by frame."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from server.store.base import AgentKey
from tests.frame_log import FrameLog
from tests.phone_rig import PATIENCE, Agent, Frame, Rig, no_answer, running

LLM: dict[str, Any] = {"llm": "openai:gpt-test", "prompt": "Be brief."}
ORG = "org_main"


@dataclass
class Page(FrameLog):
    """A page's socket: writes down every frame and can wait for the next one of a kind."""

    socket: ClientConnection
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        with suppress(ConnectionClosed):
            async for text in self.socket:
                self.note(json.loads(text))
        self.closed.set()
        self.end(f"closed {self.code}")

    @property
    def code(self) -> int | None:
        return self.socket.close_code

    async def send(self, **frame: object) -> None:
        await self.socket.send(json.dumps(frame))

    async def say(self, text: str) -> None:
        await self.send(event="message", text=text)

    async def ask(self, text: str) -> str:
        """Write, and read the whole answer."""
        await self.say(text)
        return (await self.wait("chat.done"))["text"]

    async def until_closed(self, patience: float = PATIENCE) -> int | None:
        async with asyncio.timeout(patience):
            await self.closed.wait()
        return self.code

    def of(self, event: str) -> list[Frame]:
        return [frame for frame in self.frames if frame["event"] == event]


@dataclass
class ChatRig:
    """A gateway, and the pages that are open."""

    gateway: Rig
    pages: list[Page] = field(default_factory=list[Page])
    listening: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    @property
    def chats(self) -> int:
        """Conversations going on."""
        return len(self.gateway.gateway.chats)

    async def token(self, agent: str = "mara", **metadata: object) -> str:
        sealed = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in metadata.items()}
        tokens = self.gateway.gateway.tokens
        return (await tokens.mint("chat", AgentKey(ORG, agent), sealed, None)).token

    async def open(self, token: str, path: str = "/chat/ws", thread: str = "", **options: Any) -> Page:
        """A socket, whatever becomes of it."""
        query = urlencode({"token": token, **({"thread": thread} if thread else {})})
        page = Page(await connect(f"ws://127.0.0.1:{self.gateway.port}{path}?{query}", max_size=None, **options))
        self.pages.append(page)
        self.listening.append(asyncio.create_task(page.listen()))
        return page

    async def page(self, agent: str = "mara", thread: str = "", **metadata: object) -> Page:
        """A page that has been let in."""
        page = await self.open(await self.token(agent, **metadata), thread=thread)
        await page.wait("chat.connected")
        return page

    async def agent(self, agent_id: str = "mara", **config: object) -> Agent:
        """A connection with one agent that has no number."""
        agent = await self.gateway.connected()
        config = {"voice": "elevenlabs:voice-1", "stt": "deepgram-flux", **config}
        await agent.ask("agent.create", "agent.created", agent_id=agent_id, **config)
        return agent

    async def nothing_left(self) -> None:
        """Conversations end within 2 s of their pages."""
        for _ in range(100):
            if not self.chats:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{self.chats} conversations are left")


@asynccontextmanager
async def chatting(model: Any = no_answer, **settings: Any) -> AsyncGenerator[ChatRig]:
    """A gateway on a free port whose model answers by `model`; when it ends no conversation may be left."""
    async with running(model=model, **settings) as gateway:
        rig = ChatRig(gateway)
        try:
            yield rig
        finally:
            for page in rig.pages:
                await page.socket.close()
            for task in rig.listening:
                await task
        await rig.nothing_left()
