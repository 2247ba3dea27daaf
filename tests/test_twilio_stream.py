"""The media socket as a medium: who gets in, what reaches the call, and that it ends exactly once."""

from __future__ import annotations

import asyncio
import json
import socket
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import websockets
from picows import ws_create_server  # pyright: ignore[reportUnknownVariableType]
from structlog.testing import capture_logs
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import ClientConnection

from pipelines.medium import Medium, MediumSink
from transports.twilio.door import StreamDoor
from transports.twilio.line import LineLimits, LineState, StreamStart

SILENCE = b"\xff" * 160
STREAM_URL = "wss://voice.example/twilio/stream"


@dataclass
class Call:
    """A call that remembers all its medium told it."""

    facts: list[tuple[str, object]] = field(default_factory=list[tuple[str, object]])
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def on_audio(self, audio: bytes) -> None:
        self._note("audio", audio)

    def on_mark(self, name: str) -> None:
        self._note("mark", name)

    def on_digit(self, digit: str) -> None:
        self._note("digit", digit)

    def on_gone(self, reason: str) -> None:
        self._note("gone", reason)

    def _note(self, what: str, detail: object) -> None:
        self.facts.append((what, detail))
        self.news.set()

    async def has(self, *facts: tuple[str, object]) -> None:
        """Wait until exactly these facts, and then some time longer for those that should not come."""
        async with asyncio.timeout(5):
            while len(self.facts) < len(facts):
                self.news.clear()
                await self.news.wait()
        await asyncio.sleep(0.03)
        assert self.facts == list(facts)


@dataclass
class Gateway:
    """Admits whoever knows the key `sesame`."""

    call: Call = field(default_factory=Call)
    starts: list[StreamStart] = field(default_factory=list[StreamStart])
    port: int = 0

    def admit(self, start: StreamStart) -> MediumSink | None:
        self.starts.append(start)
        return self.call if start.key == "sesame" else None

    @property
    def line(self) -> Medium:
        return self.starts[-1].medium

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/twilio/stream"


@asynccontextmanager
async def serving(
    gateway: Gateway, limits: LineLimits | None = None, token: str | None = None
) -> AsyncGenerator[Gateway]:
    door = StreamDoor(gateway.admit, STREAM_URL, [token] if token else [], limits)
    server = await ws_create_server(lambda request: door(request, "127.0.0.1"), "127.0.0.1", 0, max_frame_size=65536)
    gateway.port = server.sockets[0].getsockname()[1]
    try:
        yield gateway
    finally:
        server.close()


@asynccontextmanager
async def carrier(gateway: Gateway, key: str | None = "sesame") -> AsyncGenerator[ClientConnection]:
    """The carrier's end; says `connected` and `start` unless told no key."""
    async with websockets.connect(gateway.url, compression=None) as socket:
        if key is not None:
            await socket.send('{"event":"connected","protocol":"Call","version":"1.0.0"}')
            await socket.send(start(key))
        yield socket


def start(key: str = "sesame", encoding: str = "audio/x-mulaw") -> str:
    body = {
        "streamSid": "MZ1",
        "accountSid": "AC1",
        "callSid": "CA1",
        "tracks": ["inbound"],
        "customParameters": {"call_id": "CA1", "key": key},
        "mediaFormat": {"encoding": encoding, "sampleRate": 8000, "channels": 1},
    }
    return json.dumps({"event": "start", "sequenceNumber": "1", "streamSid": "MZ1", "start": body})


def media(audio: bytes = SILENCE, track: str = "inbound", stream: str = "MZ1") -> str:
    body = {"track": track, "chunk": "1", "timestamp": "20", "payload": b64encode(audio).decode()}
    return json.dumps({"event": "media", "sequenceNumber": "2", "streamSid": stream, "media": body})


async def closed(socket: ClientConnection) -> int | None:
    async with asyncio.timeout(5):
        await socket.wait_closed()
    return socket.close_code


async def started(gateway: Gateway) -> Medium:
    async with asyncio.timeout(5):
        while not gateway.starts:  # noqa: ASYNC110 - the door tells nobody
            await asyncio.sleep(0.005)
    return gateway.line


@pytest.mark.proves("row-111")
async def test_only_the_callers_audio_reaches_the_call_untouched() -> None:
    async with serving(Gateway()) as gateway, carrier(gateway) as socket:
        await socket.send(media(b"\x01\x02\x03"))
        await socket.send(media(b"bot", track="outbound"))
        await socket.send('{"event":"dtmf","streamSid":"MZ1","dtmf":{"track":"inbound_track","digit":"#"}}')
        await socket.send('{"event":"mark","streamSid":"MZ1","mark":{"name":"m1"}}')
        await gateway.call.has(("audio", b"\x01\x02\x03"), ("digit", "#"), ("mark", "m1"))
        said = gateway.starts[0]
        assert (said.call_id, said.call_sid, said.stream_sid, said.account_sid) == ("CA1", "CA1", "MZ1", "AC1")


async def test_what_the_call_says_arrives_in_order_and_as_documented() -> None:
    async with serving(Gateway()) as gateway, carrier(gateway) as socket:
        line = await started(gateway)
        line.send_audio(SILENCE)
        line.send_mark("half")
        line.send_clear()
        frames = [json.loads(await socket.recv()) for _ in range(3)]
        assert b64decode(frames[0]["media"]["payload"]) == SILENCE
        assert [frame["event"] for frame in frames] == ["media", "mark", "clear"]
        assert {frame["streamSid"] for frame in frames} == {"MZ1"}


@pytest.mark.proves("row-111")
@pytest.mark.parametrize("goodbye", ["stop", "close", "loss", "stop and close"])
async def test_a_call_ends_exactly_once_however_the_carrier_leaves(goodbye: str) -> None:
    async with serving(Gateway()) as gateway, carrier(gateway) as socket:
        await started(gateway)
        if "stop" in goodbye:
            await socket.send('{"event":"stop","streamSid":"MZ1","stop":{"accountSid":"AC1","callSid":"CA1"}}')
        if goodbye == "loss":
            socket.transport.abort()
        if "close" in goodbye:
            await socket.close()
        await gateway.call.has(("gone", "hangup"))
        for send in (gateway.line.send_clear, lambda: gateway.line.send_audio(SILENCE)):
            send()
        await gateway.line.hang_up()


async def test_hanging_up_closes_the_socket_once_and_is_not_reported_back() -> None:
    async with serving(Gateway()) as gateway, carrier(gateway) as socket:
        line = await started(gateway)
        line.send_audio(SILENCE)
        await asyncio.gather(line.hang_up(), line.hang_up())
        line.send_mark("late")
        assert [json.loads(frame)["event"] async for frame in socket] == ["media"]
        assert await closed(socket) == 1000
        await gateway.call.has()


async def test_hanging_up_on_a_carrier_that_does_not_answer_is_bounded() -> None:
    async with serving(Gateway(), LineLimits(hang_up_s=0.1)) as gateway, carrier(gateway) as socket:
        line = await started(gateway)
        socket.transport.pause_reading()
        async with asyncio.timeout(5):
            await line.hang_up()
        socket.transport.abort()


@pytest.mark.parametrize("key", ["", "wrong"])
async def test_a_stream_without_the_secret_is_closed_and_logged_once(key: str) -> None:
    with capture_logs() as logs:
        async with serving(Gateway()) as gateway, carrier(gateway, key) as socket:
            assert await closed(socket) == 1008
            await gateway.call.has()
    assert [(entry["event"], entry["fault"]) for entry in logs] == [("twilio_stream_fault", "not_admitted")]
    assert key not in str(logs) or not key


async def test_a_stream_that_never_starts_is_closed() -> None:
    with capture_logs() as logs:
        async with serving(Gateway(), LineLimits(start_s=0.05)) as gateway, carrier(gateway, None) as socket:
            assert await closed(socket) == 1008
    assert [entry["fault"] for entry in logs] == ["no_start"]


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (media(), "before_start"),
        (start(), "before_connected"),
        ("what?", "malformed"),
        (b"\x00binary", "not_text"),
        ('{"event":"stop","streamSid":"MZ1"}', "before_start"),
    ],
)
async def test_a_stranger_that_does_not_begin_properly_is_closed_at_once(frame: str | bytes, fault: str) -> None:
    with capture_logs() as logs:
        async with serving(Gateway()) as gateway, carrier(gateway, None) as socket:
            await socket.send(frame)
            assert await closed(socket) == 1008
            assert gateway.starts == []
    assert [entry["fault"] for entry in logs] == [fault]


async def test_a_stream_in_another_codec_is_closed() -> None:
    async with serving(Gateway()) as gateway, carrier(gateway, None) as socket:
        await socket.send('{"event":"connected"}')
        await socket.send(start(encoding="audio/x-l16"))
        assert await closed(socket) == 1008
        assert gateway.starts == []


async def test_bad_frames_of_an_admitted_call_are_overlooked_and_logged_once() -> None:
    nonsense = ["{", '{"event":"telepathy"}', start(), media(stream="MZ2"), media()[:-9], '{"event":"connected"}']
    with capture_logs() as logs:
        async with serving(Gateway()) as gateway, carrier(gateway) as socket:
            for frame in [*nonsense, *nonsense]:
                await socket.send(frame)
            await socket.send('{"event":"dtmf","streamSid":"MZ1","dtmf":{"digit":"99"}}')
            await socket.send(media(b"fine"))
            await gateway.call.has(("audio", b"fine"))
            assert len(gateway.starts) == 1
    assert [(entry["event"], entry["call_sid"]) for entry in logs] == [("twilio_stream_fault", "CA1")]


@pytest.mark.parametrize(
    ("frames", "fault", "code"),
    [
        ([b"\x00binary"], "not_text", 1008),
        (["x" * 70_000], "websocket", 1009),
        ([media()] * 60, "flood", 1008),
    ],
)
async def test_an_attack_costs_that_line_only(frames: list[str | bytes], fault: str, code: int) -> None:
    limits = LineLimits(flood_frames=50)
    with capture_logs() as logs:
        async with serving(Gateway(), limits) as gateway, carrier(gateway) as bad:
            await started(gateway)
            bystander, gateway.call = gateway.call, Call()
            async with carrier(gateway) as good:
                await good.send(media(b"a"))
                await gateway.call.has(("audio", b"a"))
                for frame in frames:
                    await bad.send(frame)
                assert await closed(bad) == code
                await good.send(media(b"b"))
                await gateway.call.has(("audio", b"a"), ("audio", b"b"))
            gone = [fact for fact in bystander.facts if fact[0] == "gone"]
            assert gone in ([("gone", "disconnected")], [("gone", "hangup")])
    assert [entry["fault"] for entry in logs] == [fault]


async def test_a_carrier_that_falls_silent_is_gone_but_one_that_only_pauses_is_not() -> None:
    with capture_logs() as logs:
        async with serving(Gateway(), LineLimits(silence_s=0.3)) as gateway, carrier(gateway) as socket:
            for _ in range(4):
                await asyncio.sleep(0.1)
                await socket.send(media(b"."))
            line = gateway.line
            await gateway.call.has(*[("audio", b".")] * 4, ("gone", "disconnected"))
            assert await closed(socket) == 1008
            assert getattr(line, "state", None) is LineState.CLOSED
    assert [entry["fault"] for entry in logs] == ["silent"]


async def test_a_carrier_that_does_not_read_is_dropped_before_it_eats_the_memory() -> None:
    with capture_logs() as logs:
        async with serving(Gateway()) as gateway, carrier(gateway) as slow:
            line = await started(gateway)
            slow.transport.pause_reading()
            slow.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            for _ in range(20_000):
                line.send_audio(SILENCE * 5)
            await gateway.call.has(("gone", "disconnected"))
            slow.transport.abort()
    assert [entry["fault"] for entry in logs] == ["slow_reader"]


async def test_a_call_that_fails_takes_its_own_line_down_and_is_not_swallowed() -> None:
    class Broken(Call):
        def on_audio(self, audio: bytes) -> None:
            raise ValueError("a bug")

    with capture_logs() as logs:
        async with serving(Gateway(call=Broken())) as gateway, carrier(gateway) as socket:
            await socket.send(media())
            assert await closed(socket) == 1011
            await gateway.call.has(("gone", "disconnected"))
    assert logs[0]["event"] == "twilio_stream_failed"


async def test_a_call_may_hang_up_while_it_is_being_admitted() -> None:
    tasks: list[asyncio.Task[None]] = []

    class Refusing(Gateway):
        def admit(self, start: StreamStart) -> MediumSink | None:
            tasks.append(asyncio.create_task(start.medium.hang_up()))
            start.medium.send_audio(SILENCE)
            return super().admit(start)

    async with serving(Refusing()) as gateway, carrier(gateway) as socket:
        assert json.loads(await socket.recv())["event"] == "media"
        assert await closed(socket) == 1000
        await asyncio.gather(*tasks)
        await gateway.call.has()


def sign(url: str, token: str) -> str:
    return RequestValidator(token).compute_signature(url, {})  # pyright: ignore[reportUnknownMemberType]


@pytest.mark.parametrize(
    ("headers", "token", "status"),
    [
        ({}, None, 101),
        ({"X-Forwarded-For": "203.0.113.9"}, None, 403),
        ({}, "token", 403),
        ({"X-Twilio-Signature": "bm9uc2Vuc2U="}, "token", 403),
        ({"x-twilio-signature": sign(STREAM_URL, "token")}, "token", 101),
    ],
)
async def test_a_handshake_needs_a_signature_where_there_is_a_token_and_is_local_where_not(
    headers: dict[str, str], token: str | None, status: int
) -> None:
    async with serving(Gateway(), token=token) as gateway:
        try:
            async with websockets.connect(gateway.url, additional_headers=headers):
                got = 101
        except websockets.InvalidStatus as refusal:
            got = refusal.response.status_code
    assert got == status
