"""The other side of the benchmark: callers as Twilio connects them, and the agent's own program."""

from __future__ import annotations

import asyncio
import audioop
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from types import TracebackType

import msgspec
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,  # pyright: ignore[reportUnknownVariableType]
)
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.phone_figures import NEW_REPLY_S
from benchmarks.phone_server import KEY
from benchmarks.phone_sound import RATE
from demo.dialling import Dial, Outcome, place_call

AUDIBLE_RMS = 300
FRAME_S = 0.02
_PATIENCE_S = 15.0


class _Media(msgspec.Struct):
    payload: bytes


class _Mark(msgspec.Struct):
    name: str


class _Frame(msgspec.Struct):
    event: str
    media: _Media | None = None
    mark: _Mark | None = None


_decoder = msgspec.json.Decoder(_Frame)


class Telephone(WSListener):
    """One caller's line: speaks 20 ms frames on an absolute clock, plays what comes and echoes marks when played."""

    def __init__(self, dial: Dial, speech: Iterator[bytes]) -> None:
        self.arrivals: list[tuple[float, int]] = []
        """When media came (s, monotonic) and how many bytes."""
        self.audible: list[float] = []
        """When a reply began to be heard."""
        self.lateness: list[float] = []
        """How late our own frames were sent (s)."""
        self._dial = dial
        self._speech = speech
        self._sid = "MZ" + dial.call_sid[2:]
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._sent = 0
        self._plays_until = 0.0
        self._last_sound = 0.0

    async def call(self) -> None:
        """Ring, and speak once the line is open. Raises ConnectionError when the gateway does not take the call."""
        answer = await place_call(self._dial)
        if answer.outcome is not Outcome.CONNECTED:
            raise ConnectionError(f"the gateway did not take the call: {answer.outcome.name.lower()}")
        self._transport, _ = await ws_connect(lambda: self, answer.stream_url)
        self._send({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        start = {
            "accountSid": self._dial.account_sid,
            "callSid": self._dial.call_sid,
            "streamSid": self._sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": answer.parameters,
        }
        self._send({"event": "start", "sequenceNumber": "1", "start": start, "streamSid": self._sid})
        self._due = time.monotonic()
        self._speak()

    def hang_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None and not self._transport.is_disconnected:
            self._send({"event": "stop", "streamSid": self._sid})
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()

    # --- the socket ---

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            return
        now = time.monotonic()
        message = _decoder.decode(frame.get_payload_as_memoryview())
        if message.media is not None:
            self._play(message.media.payload, now)
        elif message.mark is not None:
            name = message.mark.name
            self._loop.call_later(max(0.0, self._plays_until - now), self._echo, name)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _play(self, audio: bytes, now: float) -> None:
        self.arrivals.append((now, len(audio)))
        self._plays_until = max(self._plays_until, now) + len(audio) / RATE
        if audioop.rms(audioop.ulaw2lin(audio, 2), 2) > AUDIBLE_RMS:
            if now - self._last_sound > NEW_REPLY_S:
                self.audible.append(now)
            self._last_sound = now

    def _echo(self, name: str) -> None:
        if self._transport is not None and not self._transport.is_disconnected:
            self._send(
                {"event": "mark", "sequenceNumber": str(self._sent), "streamSid": self._sid, "mark": {"name": name}}
            )

    def _speak(self) -> None:
        now = time.monotonic()
        self.lateness.append(now - self._due)
        self._sent += 1
        head = (
            f'{{"event":"media","sequenceNumber":"{self._sent + 1}","media":{{"track":"inbound","chunk":"{self._sent}"'
        )
        rest = f',"timestamp":"{self._sent * 20}","payload":"'
        tail = f'"}},"streamSid":"{self._sid}"}}'
        assert self._transport is not None
        self._transport.send(WSMsgType.TEXT, (head + rest).encode() + next(self._speech) + tail.encode())
        self._due += FRAME_S
        self._timer = self._loop.call_later(max(0.0, self._due - time.monotonic()), self._speak)

    def _send(self, frame: dict[str, object]) -> None:
        assert self._transport is not None
        self._transport.send(WSMsgType.TEXT, msgspec.json.encode(frame))


def as_payloads(frames: list[bytes]) -> list[bytes]:
    """Frames as they stand in a message, encoded beforehand: the load must not cost more than what it measures."""
    return [b64encode(frame) for frame in frames]


class _Event(msgspec.Struct):
    event: str
    call_id: str = ""
    message_id: str = ""


class AgentProgram:
    """An agent on an SDK socket. With `answer` it replies to every turn itself, else the server's model does."""

    def __init__(self, port: int, number: str, config: dict[str, object], answer: str | None) -> None:
        self._url = f"ws://127.0.0.1:{port}/client"
        self._number = number
        self._config = config
        self._answer = answer
        self._socket: ClientConnection | None = None
        self._listening: asyncio.Task[None] | None = None
        self._started: asyncio.Queue[str] = asyncio.Queue(256)

    async def __aenter__(self) -> AgentProgram:
        self._socket = await connect(self._url, compression=None)
        await self._ask({"event": "connect", "api_key": KEY}, "connected")
        await self._ask({"event": "agent.create", "agent_id": "bench", **self._config}, "agent.created")
        phone = {"event": "channel.add", "agent_id": "bench", "type": "phone", "ref": self._number}
        await self._ask(phone, "channel.added")
        self._listening = asyncio.create_task(self._listen(self._socket))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listening is not None
        assert self._socket is not None
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        await self._socket.close()

    async def call_started(self) -> None:
        """The gateway has told us of one more call. Raises TimeoutError."""
        async with asyncio.timeout(_PATIENCE_S):
            await self._started.get()

    async def _ask(self, frame: Mapping[str, object], answer: str) -> None:
        assert self._socket is not None
        await self._socket.send(msgspec.json.encode(frame).decode())
        async with asyncio.timeout(_PATIENCE_S):
            data = await self._socket.recv(decode=False)
        event = msgspec.json.decode(data, type=_Event).event
        if event != answer:
            raise ConnectionError(f"the gateway answered {event}, not {answer}")

    async def _listen(self, socket: ClientConnection) -> None:
        decode = msgspec.json.Decoder(_Event).decode
        while True:
            event = decode(await socket.recv(decode=False))
            if event.event == "turn.end" and self._answer is not None:
                reply = {
                    "event": "bot.reply",
                    "call_id": event.call_id,
                    "text": self._answer,
                    "in_reply_to": event.message_id,
                }
                await socket.send(msgspec.json.encode(reply).decode())
            elif event.event == "call.started":
                self._started.put_nowait(event.call_id)
            elif event.event == "ping":
                await socket.send('{"event":"pong"}')
