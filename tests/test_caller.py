"""The software telephone: the carrier's play-out exactly, and a caller that is heard, hears, and is strict."""

from __future__ import annotations

import asyncio
import io
import json
import math
import socket
import wave
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from hypothesis import given
from hypothesis import strategies as st
from picows import WSMsgType

from demo.caller import CallOver, Happening, SoftwareCaller
from demo.carrier import ProtocolViolation
from demo.dialling import Dial, DialFailed, Outcome, read_twiml
from demo.telephone import PlayOut, first_audible, last_audible, stereo_wav
from pipelines.medium import Medium
from server.switchboard import switchboard_protocol
from transports.twilio.door import StreamDoor
from transports.twilio.line import StreamStart
from transports.twilio.signature import SIGNATURE_HEADER, parse_form, verify_webhook
from transports.twilio.stream import TwilioStream
from transports.twilio.twiml import connect_stream, reject, say_and_hang_up

QUIET = b"\xff"
LOUD = b"\x10"


# --- the play-out, on paper ---


def test_audio_plays_at_the_speed_of_the_clock_and_gaps_are_silence() -> None:
    play = PlayOut(10.0)
    play.append(LOUD * 80, 10.01)
    play.append(LOUD * 80, 10.015)
    assert play.buffered_ms == pytest.approx(15)
    play.append(LOUD * 8, 10.05)
    play.advance(10.1)
    assert bytes(play.heard) == QUIET * 80 + LOUD * 160 + QUIET * 160 + LOUD * 8 + QUIET * 392
    assert play.played_bytes == 168


def test_a_mark_is_due_the_moment_the_audio_before_it_has_been_played() -> None:
    play = PlayOut(0.0)
    play.append(LOUD * 160, 0.0)
    assert play.mark("one", 0.0).marks == ()
    play.append(LOUD * 160, 0.005)
    assert play.mark("two", 0.005).marks == ()
    assert play.next_mark_at() == pytest.approx(0.02)
    assert play.advance(0.0199).marks == ()
    assert play.advance(0.02).marks == ("one",)
    assert play.advance(1.0).marks == ("two",)
    assert play.mark("idle", 1.0).marks == ("idle",)


def test_clear_drops_what_was_not_played_and_echoes_all_marks_at_once() -> None:
    play = PlayOut(0.0)
    play.append(LOUD * 1600, 0.0)
    play.mark("end", 0.0)
    cleared = play.clear(0.05)
    assert cleared.marks == ("end",)
    assert cleared.dropped_ms == pytest.approx(150)
    play.append(LOUD * 8, 0.06)
    play.advance(1.0)
    assert (play.played_bytes, play.buffered_ms) == (408, 0)


def test_audible_sound_is_found_to_the_sample() -> None:
    play = PlayOut(0.0)
    play.append(QUIET * 100 + LOUD * 10 + QUIET * 100, 0.0)
    played = play.advance(1.0)
    assert (played.first_audible, played.last_audible) == (100, 109)
    assert (first_audible(QUIET * 9 + b"\x7f"), last_audible(b"")) == (None, None)


@given(st.lists(st.tuples(st.sampled_from(["audio", "mark", "clear", "wait"]), st.integers(0, 400)), max_size=40))
def test_nothing_is_played_twice_or_lost_and_each_mark_comes_back_once_and_in_order(
    steps: list[tuple[str, int]],
) -> None:
    play = PlayOut(0.0)
    now, sent, dropped = 0.0, 0, 0.0
    marks: list[str] = []
    echoed: list[str] = []
    for index, (what, amount) in enumerate(steps):
        match what:
            case "audio":
                played, sent = play.append(LOUD * amount, now), sent + amount
            case "mark":
                marks.append(str(index))
                played = play.mark(str(index), now)
            case "clear":
                played = play.clear(now)
                dropped += played.dropped_ms * 8
            case _:
                now += amount / 8000
                played = play.advance(now)
        echoed += played.marks
    echoed += play.advance(now + 10).marks
    assert echoed == marks
    assert play.played_bytes + round(dropped) == sent == play.heard.count(LOUD) + round(dropped)


def test_a_recording_has_the_caller_on_the_left_and_the_bot_on_the_right() -> None:
    with wave.open(io.BytesIO(stereo_wav(b"\x80" * 8, b"\x00" * 16))) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8000, 16)
        samples = memoryview(file.readframes(16)).cast("h").tolist()
    assert samples[0::2] == [32124] * 8 + [0] * 8
    assert samples[1::2] == [-32124] * 16


# --- against a gateway made of our own media socket ---

Script = Callable[["Bot"], None]


@dataclass
class Bot:
    """The call at the other end: records, and does what a test tells it on the way."""

    line: Medium
    on_start: Script
    on_loud: Script
    heard: bytearray = field(default_factory=bytearray)
    digits: str = ""
    marks: list[str] = field(default_factory=list[str])
    gone: list[str] = field(default_factory=list[str])
    hanging_up: asyncio.Task[None] | None = None
    loud: bool = False

    def on_audio(self, audio: bytes) -> None:
        self.heard += audio
        if not self.loud and first_audible(audio) is not None:
            self.loud = True
            self.on_loud(self)

    def on_mark(self, name: str) -> None:
        self.marks.append(name)

    def on_digit(self, digit: str) -> None:
        self.digits += digit

    def on_gone(self, reason: str) -> None:
        self.gone.append(reason)

    def raw(self, frame: str) -> None:
        """Send what no proper medium would."""
        assert isinstance(self.line, TwilioStream)
        transport = self.line._transport  # pyright: ignore[reportPrivateUsage]
        assert transport is not None
        transport.send(WSMsgType.TEXT, frame)

    def hang_up(self) -> None:
        self.hanging_up = asyncio.create_task(self.line.hang_up())


def nothing(bot: Bot) -> None:
    pass


@dataclass
class Gateway:
    """One call at a time: the webhook, the media socket, a scripted bot."""

    on_start: Script = nothing
    on_loud: Script = nothing
    twiml: str | None = None
    token: str | None = None
    public_url: str = "https://voice.example"
    bots: list[Bot] = field(default_factory=list[Bot])
    origin: str = ""
    forms: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def dial(self, token: str | None = None) -> Dial:
        return Dial(self.origin, "+15550100", auth_token=token, public_url=self.public_url)

    def admit(self, start: StreamStart) -> Bot:
        assert (start.key, start.call_id) == ("k", start.call_sid)
        bot = Bot(start.medium, self.on_start, self.on_loud)
        self.bots.append(bot)
        self.on_start(bot)
        return bot

    async def voice(self, request: Request) -> Response:
        form = parse_form(await request.body())
        signature = request.headers.get(SIGNATURE_HEADER)
        if self.token and not verify_webhook(self.token, f"{self.public_url}/twilio/voice", form, signature):
            return Response(status_code=403)
        self.forms.append(dict(form))
        key = {"call_id": dict(form)["CallSid"], "key": "k"}
        return Response(self.twiml or connect_stream(self.stream_url, key), media_type="text/xml")

    @property
    def stream_url(self) -> str:
        return self.public_url.replace("http", "ws", 1) + "/twilio/stream"

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Gateway]:
        app = FastAPI()
        app.add_api_route("/twilio/voice", self.voice, methods=["POST"])
        door = StreamDoor(self.admit, self.stream_url, [self.token] if self.token else [])
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.origin = f"http://127.0.0.1:{sock.getsockname()[1]}"
            config = uvicorn.Config(app, http=switchboard_protocol(door), lifespan="off", log_config=None)
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


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - whatever it is that holds, it tells nobody
            await asyncio.sleep(0.005)


def greet(bot: Bot) -> None:
    bot.line.send_audio(QUIET * 160 + LOUD * 480)
    bot.line.send_mark("greeted")


@pytest.mark.proves("row-111")
async def test_a_whole_call_is_placed_signed_heard_and_answered() -> None:
    def answer(bot: Bot) -> None:
        bot.line.send_audio(LOUD * 800)
        bot.line.send_mark("answered")

    async with Gateway(greet, answer, token="t").open() as gateway:
        async with SoftwareCaller(gateway.dial("t"), max_lead_ms=200) as caller:
            assert (await caller.ring()).outcome is Outcome.CONNECTED
            await caller.wait_bot_done(quiet_ms=320)
            assert caller.heard.count(LOUD) == 480
            caller.say(LOUD * 160)
            caller.press("#")
            await caller.wait_bot_done(quiet_ms=320)
            (bot,) = gateway.bots
            await until(lambda: bot.marks == ["greeted", "answered"])
            assert bot.marks == caller.marks
            assert bot.digits == "#"
            assert bot.heard.count(LOUD) == 160
            assert caller.heard_ms == 180
            assert [0 < seconds < 2 for seconds in caller.response_times()] == [True]
        await until(lambda: bot.gone == ["hangup"])
        assert gateway.forms[0]["From"] == caller.dial.caller
        assert gateway.forms[0]["CallSid"] == caller.dial.call_sid
        seen = [moment.what for moment in caller.moments]
        assert seen[0] is Happening.ANSWERED
        assert seen[-1] is Happening.ENDED
        assert seen.count(Happening.BOT_AUDIBLE) == seen.count(Happening.BOT_QUIET) == 2
        assert caller.moments[-1].detail == "caller"
        assert abs(len(caller.said) - len(caller.heard)) <= 8000
        with wave.open(io.BytesIO(caller.stereo_wav())) as file:
            assert file.getnframes() == max(len(caller.said), len(caller.heard))


async def test_times_of_sounds_are_those_of_the_samples() -> None:
    async with Gateway(greet).open() as gateway, SoftwareCaller(gateway.dial()) as caller:
        await caller.ring()
        caller.say(QUIET * 160 + LOUD * 80 + QUIET * 240)
        await caller.wait_said()
        await caller.wait_bot_done(quiet_ms=0)
        await caller.wait_quiet(310)
        at = {moment.what: moment.at for moment in caller.moments}
        assert at[Happening.SPEECH_ENDED] - at[Happening.SPEECH_BEGAN] == pytest.approx(0.01)
        assert at[Happening.BOT_QUIET] - at[Happening.BOT_AUDIBLE] == pytest.approx(0.06)
        began = at[Happening.ANSWERED]
        assert math.isclose((at[Happening.SPEECH_BEGAN] - began) % 0.02, 0, abs_tol=1e-6) or math.isclose(
            (at[Happening.SPEECH_BEGAN] - began) % 0.02, 0.02, abs_tol=1e-6
        )


async def test_what_is_cleared_is_never_heard_and_its_mark_comes_back_at_once() -> None:
    def talk(bot: Bot) -> None:
        bot.line.send_audio(LOUD * 80_000)
        bot.line.send_mark("never reached")

    gateway = Gateway(talk, lambda bot: bot.line.send_clear())
    async with gateway.open(), SoftwareCaller(gateway.dial()) as caller:
        await caller.ring()
        await caller.wait_bot_audible()
        caller.say(LOUD * 160)
        await caller.wait_quiet(50)
        await until(lambda: gateway.bots[0].marks == ["never reached"])
        assert caller.heard_ms < 9000
        stopped = {Happening.CLEARED, Happening.BOT_QUIET}
        assert stopped < {moment.what for moment in caller.moments}
        assert not caller.is_bot_audible()


@pytest.mark.parametrize(
    ("twiml", "outcome", "detail"),
    [
        (reject("busy"), Outcome.REJECTED, "busy"),
        (reject(), Outcome.REJECTED, "rejected"),
        (say_and_hang_up("Nobody is in."), Outcome.SAID, "Nobody is in."),
    ],
)
async def test_a_call_that_is_not_taken_is_reported_as_such(twiml: str, outcome: Outcome, detail: str) -> None:
    async with Gateway(twiml=twiml).open() as gateway, SoftwareCaller(gateway.dial()) as caller:
        answer = await caller.ring()
        assert (answer.outcome, answer.detail) == (outcome, detail)
        assert gateway.bots == []


async def test_a_caller_that_does_not_sign_is_turned_away() -> None:
    async with Gateway(token="t").open() as gateway, SoftwareCaller(gateway.dial(None)) as caller:
        with pytest.raises(DialFailed, match="403"):
            await caller.ring()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<Response/>",
        b"<Respond><Hangup/></Respond>",
        b"<Response><Dial>+1</Dial></Response>",
        b"<Response><Connect/></Response>",
        b'<Response><Connect><Stream url="https://v.example/s"/></Connect></Response>',
        b'<Response><Connect><Stream url="wss://v.example/s?key=1"/></Connect></Response>',
        b'<Response><Connect><Stream url="wss://v.example/s"><Parameter name="k" value="'
        + b"x" * 500
        + b'"/></Stream></Connect></Response>',
    ],
)
def test_twiml_that_twilio_would_not_take_fails_the_call(document: bytes) -> None:
    with pytest.raises(DialFailed):
        read_twiml(document)


@pytest.mark.parametrize(
    "frame",
    [
        "garbage",
        '{"event":"hello","streamSid":"SID"}',
        '{"event":"clear","streamSid":"MZother"}',
        '{"event":"clear"}',
        '{"event":"media","streamSid":"SID","media":{"payload":"***"}}',
        '{"event":"media","streamSid":"SID","media":{"payload":""}}',
        '{"event":"media","streamSid":"SID","media":{"payload":"UklGRgAA"}}',
        '{"event":"media","streamSid":"SID","media":{"payload":"////","track":"outbound"}}',
        '{"event":"mark","streamSid":"SID","mark":{"name":7}}',
    ],
)
async def test_a_gateway_that_breaks_the_carriers_rules_is_told_on(frame: str) -> None:
    def misbehave(bot: Bot) -> None:
        assert isinstance(bot.line, TwilioStream)
        bot.raw(frame.replace("SID", bot.line._stream_sid))  # pyright: ignore[reportPrivateUsage]

    async with Gateway(misbehave).open() as gateway, SoftwareCaller(gateway.dial()) as caller:
        await caller.ring()
        with pytest.raises(ProtocolViolation):
            await caller.wait_ended()
        with pytest.raises(ProtocolViolation):
            await caller.wait_bot_audible()
        caller._line.fault = None  # pyright: ignore[reportPrivateUsage]


async def test_a_gateway_that_runs_ahead_of_real_time_is_told_on_when_leaving() -> None:
    async def call(caller: SoftwareCaller) -> None:
        async with caller:
            await caller.ring()
            await until(lambda: caller.is_over)

    async with Gateway(lambda bot: bot.line.send_audio(LOUD * 4000)).open() as gateway:
        caller = SoftwareCaller(gateway.dial(), max_lead_ms=200)
        with pytest.raises(ProtocolViolation, match="ahead"):
            await call(caller)
        assert caller.max_lead_seen_ms == pytest.approx(500, abs=20)


async def test_a_gateway_that_hangs_up_ends_the_call_and_whatever_waits_for_it() -> None:
    async with Gateway(Bot.hang_up).open() as gateway, SoftwareCaller(gateway.dial()) as caller:
        await caller.ring()
        with pytest.raises(CallOver, match="gateway"):
            await caller.wait_bot_audible()
        await caller.wait_ended()
        assert gateway.bots[0].gone == []


async def test_a_caller_that_vanishes_is_noticed_by_the_gateway() -> None:
    async with Gateway().open() as gateway, SoftwareCaller(gateway.dial()) as caller:
        await caller.ring()
        await until(lambda: bool(gateway.bots) and len(gateway.bots[0].heard) >= 320)
        caller.vanish()
        await caller.wait_ended()
        await until(lambda: gateway.bots[0].gone == ["hangup"])
        assert caller.moments[-1].detail == "lost"


async def test_a_gateway_that_is_not_there_is_a_failed_call() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        origin = f"http://127.0.0.1:{closed.getsockname()[1]}"
    async with SoftwareCaller(Dial(origin, "+1")) as caller:
        with pytest.raises(DialFailed):
            await caller.ring()


def test_a_gateway_elsewhere_is_reached_by_the_name_it_gives() -> None:
    far = Dial("https://voice.example", "+1")
    near = Dial("http://127.0.0.1:1337", "+1", public_url="https://voice.example")
    assert far.reachable("wss://media.example/twilio/stream") == "wss://media.example/twilio/stream"
    assert near.reachable("wss://voice.example/twilio/stream") == "ws://127.0.0.1:1337/twilio/stream"


async def test_no_telephone_has_other_keys() -> None:
    caller = SoftwareCaller(Dial("http://127.0.0.1:9", "+1"))
    with pytest.raises(ValueError, match="no such key"):
        caller.press('1"}')
    assert json.dumps(caller.moments) == "[]"
