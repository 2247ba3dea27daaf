"""Frames that SDKs of every era send, read into commands."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.commands import (
    AgentCreate,
    AnyCommand,
    BotReply,
    CallCommand,
    CallDial,
    ChannelAdd,
    DevConfig,
    HistorySetInstructions,
    LlmToolResult,
    OnCall,
    SessionConfigure,
    Unknown,
)
from wire.parsing import BadCommand, FrameError, parse


def read(event: str, **fields: object) -> object:
    return parse(json.dumps({"event": event, **fields}))


def test_configuration_keys_are_gathered_as_they_came() -> None:
    command = read(
        "agent.create",
        agent_id="Front_Desk 2",
        sessionLimits={"idleTimeout": 5},
        stt="deepgram:nova-3:fr",
        config={"vad": {"threshold": 0.4}},
        allowedOrigins=["https://shop.example"],
        voice=None,
    )
    assert isinstance(command, AgentCreate)
    assert command.agent_id == "Front_Desk 2"
    assert command.allowed_origins == ["https://shop.example"]
    assert {key: json.loads(bytes(value)) for key, value in command.config.items()} == {
        "sessionLimits": {"idleTimeout": 5},
        "stt": "deepgram:nova-3:fr",
        "config": {"vad": {"threshold": 0.4}},
        "voice": None,
    }


def test_session_configure_names_the_call_by_its_session() -> None:
    command = read("session.configure", session_id="CA1", agent_id="mara", language="es")
    assert isinstance(command, SessionConfigure)
    assert command.call_id == "CA1"
    assert list(command.config) == ["language"]


def test_a_dials_configuration_stays_one_object() -> None:
    command = read("call.dial", **{"agent_id": "mara", "to": "+1555", "from": "+1318", "config": {"voice": "a/b"}})
    assert isinstance(command, CallDial)
    assert command.from_ == "+1318"
    assert list(command.config) == ["voice"]


def test_whatsapp_credentials_are_camel_case_on_the_wire() -> None:
    command = read("channel.add", agent_id="m", type="whatsapp", ref="123", accessToken="t", appSecret="s")
    assert isinstance(command, ChannelAdd)
    assert (command.access_token, command.app_secret, command.config) == ("t", "s", {})


@pytest.mark.parametrize(
    "fields",
    [
        {"msg_id": "tr_1", "results": [{"tool_call_id": "tc_1", "result": {"found": True}}]},
        {"msgId": "tr_1", "results": [{"toolCallId": "tc_1", "output": {"found": True}}]},
        {"message_id": "tr_1", "results": [{"id": "tc_1", "content": {"found": True}}]},
        {"msg_id": "tr_1", "tool_call_id": "tc_1", "result": {"found": True}},
        {"msg_id": "tr_1", "toolCallId": "tc_1", "result": {"found": True}, "noFollowup": True},
    ],
)
def test_tool_results_are_read_in_every_spelling(fields: dict[str, object]) -> None:
    command = read("llm.tool_result", call_id="CA1", **fields)
    assert isinstance(command, LlmToolResult)
    assert command.msg_id == "tr_1"
    assert [(one.tool_call_id, json.loads(bytes(one.result))) for one in command.results] == [("tc_1", {"found": True})]
    assert command.results[0].no_followup is ("noFollowup" in fields)


def test_older_names_and_null_mean_what_they_always_meant() -> None:
    older = read("history.set_instructions", call_id="CA1", instructions="Be brief", request_id=None)
    assert older == HistorySetInstructions(call_id="CA1", prompt="Be brief")
    assert read("bot.reply", callId="CA1", text="Hi", inReplyTo="u1", zap=1) == BotReply(
        call_id="CA1", text="Hi", in_reply_to="u1"
    )


@pytest.mark.parametrize(
    ("event", "fields", "field"),
    [
        ("bot.reply", {"call_id": "CA1", "text": 7}, "text"),
        ("bot.reply", {"text": "Hi"}, "call_id"),
        ("bot.reply.stream", {"call_id": "CA1", "message_id": "m", "action": "pause"}, "action"),
        ("channel.add", {"agent_id": "mara", "type": "fax"}, "type"),
        ("dev.config", {"callers": "+34600"}, "callers"),
        ("llm.tool_result", {"call_id": "CA1", "msg_id": "t", "results": [{"result": 1}]}, "results"),
        ("llm.tool_result", {"call_id": "CA1", "msg_id": "t", "results": 1}, "results"),
    ],
)
def test_a_wrong_field_is_named(event: str, fields: dict[str, object], field: str) -> None:
    with pytest.raises(BadCommand) as refused:
        read(event, **fields)
    assert (refused.value.event, refused.value.field) == (event, field)


@pytest.mark.parametrize("frame", ["", "hello", "[1]", '"ping"', b"\xff\xfe", "{", "[" * 100_000, '{"a":' * 5000])
def test_what_is_no_json_object_is_nonsense(frame: str | bytes) -> None:
    with pytest.raises(FrameError):
        parse(frame)


@pytest.mark.parametrize(
    "frame",
    [
        b'{"event":"\xff"}',
        b'{"event":"connect","agent_id":"\xff","api_key":5}',
        b'{"event":"call.dial","agent_id":"m","to":"+12025550142","metadata":{"x":"\xff"}}',
    ],
)
def test_bytes_that_are_no_text_are_no_frame(frame: bytes) -> None:
    with pytest.raises(FrameError):
        parse(frame)


def test_an_event_nobody_knows_is_unknown_not_wrong() -> None:
    assert read("zap", x=1) == Unknown("zap")
    assert parse("{}") == Unknown("")
    assert parse('{"event":7}') == Unknown("")


def test_every_command_of_a_call_is_found_by_its_call_id() -> None:
    assert {one for one in get_args(AnyCommand) if issubclass(one, OnCall)} == set(get_args(CallCommand))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda j: st.lists(j), max_leaves=5))
def test_no_value_of_any_type_breaks_the_reader(value: object) -> None:
    for event, field in (("bot.reply", "text"), ("dev.config", "callers"), ("llm.tool_result", "results")):
        with suppress(BadCommand):
            command = read(event, **{"call_id": "CA1", "msg_id": "m", field: value})
            assert isinstance(command, BotReply | DevConfig | LlmToolResult)
