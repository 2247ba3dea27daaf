"""A small agent in its own process: connects out to a gateway, speaks the SDK's protocol, and takes table bookings.

It does what any program with the SDK does: `connect`, `agent.create`, `channel.add`, then `bot.reply` for every
`turn.end`. Run it beside a gateway: `python -m demo.agent --url ws://127.0.0.1:1337/client --key pk_…`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from demo.booking import Host

GRAMMAR: Final = Path(__file__).parent / "booking.jsgf"
DEMO_NUMBER: Final = "+15550100100"
DEMO_AGENT: Final = "casa-verde"


class AgentEvent(msgspec.Struct, kw_only=True):
    """What this agent reads of any frame."""

    event: str
    call_id: str = ""
    message_id: str = ""
    text: str = ""
    error: str = ""
    code: str = ""


@dataclass(slots=True)
class _Conversation:
    host: Host = field(default_factory=Host)
    last_words: str = ""
    """Id of the message after which the agent hangs up."""


class BookingAgent:
    """One connection with one agent. `on_event` sees every frame of the gateway, for whoever wants to show it."""

    def __init__(self, url: str, key: str, number: str = DEMO_NUMBER) -> None:
        self._url = url
        self._key = key
        self._number = number
        self._calls: dict[str, _Conversation] = {}
        self._socket: ClientConnection | None = None
        self.ready = asyncio.Event()
        self.on_event: Callable[[bytes], None] | None = None
        self.on_booking: Callable[[str], None] | None = None

    async def run(self) -> None:
        """Serve until cancelled or refused. Raises ConnectionError when the gateway refuses the key or the agent."""
        async with connect(self._url, compression=None) as socket:
            self._socket = socket
            await self._send({"event": "connect", "api_key": self._key})
            try:
                async for frame in socket:
                    await self._receive(frame.encode() if isinstance(frame, str) else frame)
            except ConnectionClosed as closed:
                raise ConnectionError(f"the gateway closed the connection: {closed}") from None

    async def _receive(self, frame: bytes) -> None:
        if self.on_event is not None:
            self.on_event(frame)
        event = msgspec.json.decode(frame, type=AgentEvent)
        match event.event:
            case "connected":
                await self._send(self._registration())
            case "agent.created":
                await self._send({"event": "channel.add", "agent_id": DEMO_AGENT, "type": "phone", "ref": self._number})
                await self._send({"event": "channel.add", "agent_id": DEMO_AGENT, "type": "webrtc"})
            case "channel.added" if not self.ready.is_set():
                self.ready.set()
                if self.on_event is None:
                    print(f"{DEMO_AGENT} is connected; ring it: voice-gateway call --to {self._number}", flush=True)
            case "ping":
                await self._send({"event": "pong"})
            case "error" if not event.call_id:
                raise ConnectionError(f"{event.code}: {event.error}")
            case _:
                await self._serve(event)

    async def _serve(self, event: AgentEvent) -> None:
        match event.event:
            case "call.started":
                call = self._calls.setdefault(event.call_id, _Conversation())
                await self._reply(event.call_id, call.host.greeting(), "")
            case "turn.end" if event.call_id in self._calls:
                call = self._calls[event.call_id]
                answer = call.host.hear(event.text)
                message = await self._reply(event.call_id, answer.text, event.message_id)
                if answer.over:
                    call.last_words = message
                if answer.over and call.host.booking.confirmed and self.on_booking is not None:
                    self.on_booking(str(call.host.booking))
            case "bot.finished" if event.call_id in self._calls:
                if event.message_id == self._calls[event.call_id].last_words:
                    await self._send({"event": "call.hangup", "call_id": event.call_id})
            case "llm.chat.started" if event.call_id not in self._calls:
                call = self._calls[event.call_id] = _Conversation()
                await self._reply(event.call_id, call.host.greeting(), "")
            case "chat.message" if event.call_id in self._calls:
                answer = self._calls[event.call_id].host.hear(event.text)
                await self._reply(event.call_id, answer.text, event.message_id)
            case "call.ended" | "llm.chat.ended" | "llm.chat.error":
                self._calls.pop(event.call_id, None)
            case _:
                pass

    async def _reply(self, call_id: str, text: str, in_reply_to: str) -> str:
        message_id = f"msg_{secrets.token_hex(6)}"
        await self._send(
            {
                "event": "bot.reply",
                "call_id": call_id,
                "message_id": message_id,
                "text": text,
                "in_reply_to": in_reply_to,
            }
        )
        return message_id

    def _registration(self) -> dict[str, object]:
        return {
            "event": "agent.create",
            "agent_id": DEMO_AGENT,
            "language": "en",
            "voice": "local",
            "stt": {"provider": "local", "grammar": GRAMMAR.read_text(encoding="utf-8")},
        }

    async def _send(self, frame: dict[str, object]) -> None:
        assert self._socket is not None
        await self._socket.send(msgspec.json.encode(frame).decode())


async def _serve(agent: BookingAgent, patience: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    while True:
        try:
            await agent.run()
        except ConnectionRefusedError:
            if loop.time() >= until:
                raise
            await asyncio.sleep(0.1)


def _print_event(frame: bytes) -> None:
    sys.stdout.buffer.write(b"event " + frame + b"\n")
    sys.stdout.buffer.flush()


def _print_booking(booking: str) -> None:
    _print_event(msgspec.json.encode({"event": "demo.booked", "text": booking}))


def main() -> None:
    """Command line: serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A demo agent that takes table bookings.")
    parser.add_argument("--url", default="ws://127.0.0.1:1337/client")
    parser.add_argument("--key", default=os.environ.get("PINECALL_API_KEY", ""))
    parser.add_argument("--number", default=DEMO_NUMBER)
    parser.add_argument("--patience", type=float, default=0.0, help="seconds to wait for a gateway that is starting")
    parser.add_argument("--print-events", action="store_true", help="write every frame to standard output")
    options = parser.parse_args()
    agent = BookingAgent(options.url, options.key, options.number)
    if options.print_events:
        agent.on_event = _print_event
        agent.on_booking = _print_booking
    try:
        asyncio.run(_serve(agent, options.patience))
    except KeyboardInterrupt:
        pass
    except (ConnectionError, OSError) as error:
        raise SystemExit(f"demo agent: {error}") from None


if __name__ == "__main__":
    main()
