"""The data channel without a network: what waits, what is given up, and the words on it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from transports.webrtc.channel import MAX_UNSENT, MAX_WAITING, EventChannel
from transports.webrtc.messages import (
    MAX_FRAME_OUT,
    Configure,
    InjectText,
    Mute,
    Outgoing,
    Ping,
    PutContext,
    Weight,
    frame,
    frames_of,
    read_frame,
)
from wire import events
from wire.events import (
    AudioMetrics,
    BotFinished,
    BotWord,
    CallEnded,
    CallError,
    CallEvent,
    CallMuted,
    HistoryData,
    LlmError,
    LlmToolCall,
    SessionIdleWarning,
    SessionTimeout,
    ToolCallRequest,
    UserSpeaking,
)
from wire.page_events import ConfigUpdated, LlmToolOutcome, Pong, SessionStarted, ToolOutcome


class Wire:
    def __init__(self, *, stuck: bool = False) -> None:
        self.bufferedAmount = 0
        self.sent: list[str] = []
        self._stuck = stuck

    def send(self, data: str) -> None:
        self.sent.append(data)
        if self._stuck:
            self.bufferedAmount += len(data)


def out(text: str, weight: Weight = Weight.FACT) -> Outgoing:
    return Outgoing(text, weight)


def test_what_is_known_before_the_channel_opens_waits_in_order() -> None:
    channel, wire = EventChannel(), Wire()
    for text in "abc":
        channel.send(out(text))
    channel.open(wire)
    channel.send(out("d"))
    assert wire.sent == ["a", "b", "c", "d"]


def test_what_waits_is_bounded_and_levels_are_given_up_first_then_passing_words() -> None:
    channel, wire = EventChannel(), Wire()
    for number in range(MAX_WAITING):
        weight = [Weight.METRICS, Weight.PASSING, Weight.FACT, Weight.FACT][number % 4]
        channel.send(out(f"{weight.name}-{number}", weight))
    for number in range(MAX_WAITING // 2 + 10):
        channel.send(out(f"new-{number}"))
        assert channel.waiting <= MAX_WAITING
    channel.open(wire)
    assert not any(text.startswith(("METRICS", "PASSING")) for text in wire.sent)
    assert wire.sent[0] == "FACT-22", "then the oldest"
    assert wire.sent[-1] == f"new-{MAX_WAITING // 2 + 9}"


def test_a_page_that_does_not_read_is_not_written_to_without_end() -> None:
    channel, wire = EventChannel(), Wire(stuck=True)
    channel.open(wire)
    for _ in range(2000):
        channel.send(out("x" * 1000))
    assert wire.bufferedAmount <= MAX_UNSENT + 1000
    assert channel.waiting <= MAX_WAITING
    wire.bufferedAmount = 0
    channel.flush()
    assert wire.bufferedAmount > 0, "and goes on when it reads again"


async def test_the_last_frames_are_waited_for_but_not_for_ever() -> None:
    channel, wire = EventChannel(), Wire(stuck=True)
    channel.open(wire)
    channel.send(out("bye"))
    await channel.drain()
    channel.close()
    assert channel.waiting == 0
    assert not channel.is_open


# --- from the page ---


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("ping", Ping(asks=False)),
        (b"ping", Ping(asks=False)),
        ('{"action":"ping"}', Ping(asks=True)),
        ('{"action":"mute"}', Mute(on=True)),
        ('{"action":"unmute"}', Mute(on=False)),
        ('{"action":"inject_text","text":" hi "}', InjectText("hi")),
        ('{"action":"set_context","key":"cart","value":"2 items"}', PutContext("cart", "2 items")),
        ('{"action":"set_context","key":"cart","value":{"n":2}}', PutContext("cart", '{"n":2}')),
        ('{"action":"set_context","key":"cart","value":null}', PutContext("cart", None)),
        ('{"action":"set_context","key":"cart"}', PutContext("cart", None)),
        ('{"action":"configure","language":"es"}', Configure({"language": msgspec.Raw(b'"es"')})),
    ],
)
def test_what_a_page_may_say(text: str | bytes, command: object) -> None:
    assert read_frame(text) == command


@pytest.mark.proves("web-28")
@pytest.mark.parametrize(
    "text",
    [
        *("", "pong", "null", "[]", "{", '"ping"', "{}", '{"action":7}', '{"action":null}', '{"action":"hangup"}'),
        *('{"action":"inject_text"}', '{"action":"inject_text","text":"  "}', '{"action":"inject_text","text":7}'),
        *('{"action":"set_context","key":""}', '{"action":"set_context","value":"x"}', '{"event":"mute"}'),
        *("[" * 5000, '{"a":' * 3000, "\ud800", '{"action":"mute"} trailing'),
    ],
)
def test_everything_else_means_nothing(text: str) -> None:
    assert read_frame(text) is None


def test_bytes_that_are_no_text_mean_nothing() -> None:
    assert read_frame(b"\xff\xfe\x00") is None


def test_a_text_of_any_length_is_cut() -> None:
    command = read_frame(json.dumps({"action": "inject_text", "text": "x" * 15000}))
    assert isinstance(command, InjectText)
    assert len(command.text) == 8000


# --- to the page ---


def told(event: CallEvent) -> list[dict[str, Any]]:
    event.call_id = event.session_id = "wrt_1"
    return [json.loads(one.text) for one in frames_of(event)]


def test_frames_of_our_own_name_the_call() -> None:
    assert json.loads(frame(SessionStarted(call_id="c", session_id="c")).text) == {
        "event": "session.started",
        "call_id": "c",
        "session_id": "c",
    }
    assert json.loads(frame(Pong(call_id="c")).text) == {"event": "pong", "call_id": "c"}
    updated = frame(ConfigUpdated(call_id="c", config={"language": msgspec.Raw(b'"es"')}))
    assert json.loads(updated.text) == {"event": "config.updated", "call_id": "c", "config": {"language": "es"}}


FORWARDED = {
    *("speech.started", "speech.ended", "user.speaking", "user.message", "turn.pause", "turn.resumed", "turn.end"),
    *("eager.turn", "turn.continued", "bot.speaking", "bot.word", "bot.finished", "bot.interrupted"),
    *("message.confirmed", "audio.metrics", "llm.tool_call", "llm.tool_result", "llm.error", "session.idle_warning"),
    *("session.ended", "session.timeout"),
}


def of_type(type_: type[CallEvent]) -> CallEvent:
    """One with something in every field that must be given."""
    values: dict[str, Any] = {"str": "x", "int": 1, "float": 1.0, "bool": True, "str | None": None}
    fields = {
        field.name: values.get(getattr(field.type, "__name__", str(field.type)), [])
        for field in msgspec.structs.fields(type_)
        if field.required
    }
    return type_(**fields)


def test_pages_are_told_what_is_written_down_for_them_and_nothing_else() -> None:
    said: set[str] = set()
    for value in [*vars(events).values(), LlmToolOutcome]:
        if isinstance(value, type) and issubclass(value, CallEvent) and value is not CallEvent:
            said |= {one["event"] for one in told(of_type(value))}
    assert said == FORWARDED


@pytest.mark.parametrize(
    "event",
    [
        HistoryData(messages=[]),
        CallError(code="STT_ERROR", error="https://vendor.example refused key sk_…"),
        CallMuted(),
        SessionTimeout(reason="idle_timeout"),
    ],
)
def test_what_is_the_agents_stays_the_agents(event: CallEvent) -> None:
    assert told(event) == []


def test_of_a_models_failure_only_the_fact_is_told() -> None:
    [one] = told(LlmError(error="401 from api.vendor.example: key sk_live_1", code="LLM_ERROR"))
    assert "vendor" not in json.dumps(one)
    assert one["error"]


@pytest.mark.proves("web-26")
@pytest.mark.parametrize(
    ("reason", "nudge"),
    [
        ("idle_timeout", "idle_timeout"),
        ("max_duration", "max_duration"),
        ("client_hangup", "hangup"),
        ("agent_disconnected", "hangup"),
        ("forwarded", "hangup"),
    ],
)
def test_the_end_is_told_in_the_two_ways_that_clients_act_on(reason: str, nudge: str) -> None:
    ended = CallEnded(
        reason=reason,
        from_="",
        to="",
        direction="",
        metadata={},
        messages=[],
        duration_seconds=1,
        started_at=1,
        ended_at=2,
    )
    first, second = told(ended)
    assert (first["event"], first["reason"], first["session_id"]) == ("session.ended", reason, "wrt_1")
    assert (second["event"], second["reason"]) == ("session.timeout", nudge)
    assert "messages" not in first


def test_a_tools_result_is_told_flat_and_as_a_list() -> None:
    outcome = LlmToolOutcome(msg_id="m", tool_call_id="t", name="f", result="[1]", results=[ToolOutcome("t", "[1]")])
    [one] = told(outcome)
    assert one["event"] == "llm.tool_result"
    assert (one["tool_call_id"], one["name"], one["result"], one["msg_id"]) == ("t", "f", "[1]", "m")
    assert one["results"] == [{"tool_call_id": "t", "result": "[1]"}]


def test_no_frame_is_larger_than_a_channel_carries() -> None:
    huge = "ü" * 100_000
    result = LlmToolOutcome(msg_id="m", tool_call_id="t", name="f", result=huge, results=[ToolOutcome("t", huge)])
    call = LlmToolCall(msg_id="m", tool_calls=[ToolCallRequest("t", "f", json.dumps({"x": huge}))])
    finished = BotFinished(message_id="m", text=huge, duration_ms=1)
    for event in (result, call, finished):
        [one] = frames_of(event)
        assert len(one.text.encode()) <= MAX_FRAME_OUT
    [shortened] = told(result)
    assert json.loads(shortened["result"])["truncated"] is True
    [asked] = told(call)
    assert json.loads(asked["tool_calls"][0]["arguments"])["truncated"] is True
    assert call.tool_calls[0].arguments.startswith('{"x"'), "the agent's own copy is as it was"


def test_what_is_worth_least_is_marked() -> None:
    metrics = AudioMetrics(source="user", energy_db=0, rms=0, peak=0, is_speech=False, vad_prob=0, timestamp=0)
    word = BotWord(message_id="m", word="w", word_index=0, start_time=0, end_time=0)
    interim = UserSpeaking(message_id="m", turn_id=1, text="t", confidence=1)
    warning = SessionIdleWarning(remaining_seconds=1, idle_timeout_seconds=2)
    weights = [frames_of(event)[0].weight for event in (metrics, word, interim, warning)]
    assert weights == [Weight.METRICS, Weight.PASSING, Weight.PASSING, Weight.FACT]
