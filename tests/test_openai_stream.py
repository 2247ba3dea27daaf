"""Reading a streamed answer: pure, table by table."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from providers.base import Generation, LlmEvent, Message, TextDelta, ToolCall, ToolCalls, Usage
from providers.openai_stream import MAX_EVENT, Answer, EventLines, StreamFailed, ThoughtFilter
from providers.openai_wire import COMPATIBLE, OPENAI, amend, quirks_of, refused_option, request_body
from wire.config import LlmConfig, Tool


def _read(*deltas: dict[str, Any] | None, finish: str | None = "stop") -> tuple[str, list[LlmEvent], Answer]:
    answer = Answer()
    text = "".join(
        answer.feed(json.dumps({"choices": [{"index": 0, "delta": delta, "extra": 1}]}).encode()) for delta in deltas
    )
    text += answer.feed(json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}).encode())
    return text, list(answer.end()), answer


def _fragments(*fragments: dict[str, Any]) -> tuple[ToolCall, ...]:
    _, events, _ = _read(*({"tool_calls": [fragment]} for fragment in fragments))
    assert len(events) == 1
    assert isinstance(events[0], ToolCalls)
    return events[0].calls


def _call(name: str | None = None, arguments: Any = None, **rest: Any) -> dict[str, Any]:
    return {**rest, "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_survive_any_cut_and_line_separators_inside_json(size: int) -> None:
    stream = ': comment\n\ndata: {"a":"é\u2028☕"}\r\n\r\nevent: x\ndata:[DONE]\n\n'.encode()
    lines = EventLines()
    events = [event for at in range(0, len(stream), size) for event in lines.feed(stream[at : at + size])]
    assert events == ['{"a":"é\u2028☕"}'.encode(), b"[DONE]"]


def test_a_line_without_end_is_refused_instead_of_kept() -> None:
    lines = EventLines()
    lines.feed(b"x" * MAX_EVENT)
    with pytest.raises(ValueError, match="too long"):
        lines.feed(b"x")


def test_only_text_is_spoken() -> None:
    text, events, _ = _read(
        {"role": "", "content": None},
        {"content": "Hel", "refusal": None},
        None,
        {"refusal": "I cannot"},
        {"reasoning_content": "hmm"},
        {"content": [{"type": "thinking", "thinking": [{"text": "hmm"}]}, {"type": "text", "text": "lo"}]},
    )
    assert text == "Hello"
    assert events == []


def test_pieces_of_interleaved_calls_find_their_call_by_index() -> None:
    assert _fragments(
        _call("book", "", index=0, id="a"),
        _call("weather", "", index=1, id="b"),
        _call(None, '{"d"', index=0),
        _call(None, '{"p"', index=1),
        _call(None, ":1}", index=0),
        _call(None, ":2}", index=1),
    ) == (ToolCall("a", "book", '{"d":1}'), ToolCall("b", "weather", '{"p":2}'))


@pytest.mark.parametrize("index", [{"index": 0}, {}, {"index": None}])
def test_whole_calls_that_all_say_index_0_or_none_are_told_apart_by_id(index: dict[str, Any]) -> None:
    calls = _fragments(_call("book", '{"d":1}', id="a", **index), _call("book", {"d": 2}, id="b", **index))
    assert calls == (ToolCall("a", "book", '{"d":1}'), ToolCall("b", "book", '{"d":2}'))


def test_pieces_without_index_and_id_continue_the_last_call_and_get_an_id() -> None:
    assert _fragments(_call("book", "{"), _call(None, "}"), _call("weather", "")) == (
        ToolCall("call_0", "book", "{}"),
        ToolCall("call_1", "weather", "{}"),
    )


def test_pieces_that_repeat_their_id_stay_one_call() -> None:
    assert _fragments(_call("book", "{", index=0, id="a"), _call(None, "}", index=0, id="a")) == (
        ToolCall("a", "book", "{}"),
    )


def test_tools_count_as_called_although_the_server_says_stop() -> None:
    _, events, _ = _read({"tool_calls": [_call("book", "{}", index=0, id="a")]}, finish="stop")
    assert events == [ToolCalls((ToolCall("a", "book", "{}"),))]


def test_usage_of_a_chunk_without_choices_comes_last() -> None:
    answer = Answer()
    answer.feed(b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}')
    answer.feed(b'{"choices":[{"delta":{"content":"x <"},"finish_reason":"stop"}],"usage":null}')
    assert list(answer.end()) == [TextDelta("<"), Usage(9, 2)]


def test_an_answer_is_complete_only_when_the_server_said_so() -> None:
    answer = Answer()
    answer.feed(b'{"choices":[{"delta":{"content":"x"}}]}')
    assert not answer.complete
    answer.feed(b"[DONE]")
    assert answer.complete
    assert answer.done


@pytest.mark.parametrize(
    "data", [b'{"error":{"message":"x"}}', b'{"error":"x"}', b'{"choices":[{"finish_reason":"error"}]}']
)
def test_an_error_inside_the_stream_is_an_error(data: bytes) -> None:
    with pytest.raises(StreamFailed):
        Answer().feed(data)


@pytest.mark.parametrize(
    ("pieces", "spoken"),
    [
        (["<think>plan</think>\n\nHello"], "Hello"),
        (["<th", "ink>a<b</thi", "nk>", " \n", "Hel", "lo <", "3"], "Hello <3"),
        (["a < b <thin"], "a < b <thin"),
        (["One. <think>x</think> Two."], "One. Two."),
        (["<think>never closed"], ""),
    ],
)
def test_thoughts_are_never_spoken(pieces: list[str], spoken: str) -> None:
    thoughts = ThoughtFilter()
    assert "".join(thoughts.feed(piece) for piece in pieces) + thoughts.end() == spoken


def test_text_that_cannot_be_a_tag_is_not_held_back() -> None:
    assert ThoughtFilter().feed("Hello, 2 <3") == "Hello, 2 <3"


# --- request ---


def _generation(**config: Any) -> Generation:
    return Generation(LlmConfig(provider="openai", model="m", **config), (Message("user", "hi"),))


@pytest.mark.proves("row-34")
def test_options_out_of_range_are_clamped() -> None:
    body = request_body(_generation(temperature=7.0, max_tokens=0), OPENAI)
    assert (body["temperature"], body["max_completion_tokens"]) == (2.0, 1)
    assert "temperature" not in request_body(_generation(temperature=None), OPENAI)


def test_a_tool_round_is_written_as_the_vendor_reads_it() -> None:
    asked = Message("assistant", "", tool_calls=(ToolCall("a", "book", "{}"),))
    tool = Tool(name="book", description="Books.", parameters=msgspec.Raw(b'{"type":"object"}'))
    generation = Generation(
        LlmConfig(provider="openai", model="m"),
        (asked, Message("tool", "done", tool_call_id="a")),
        (tool,),
        force_text=True,
    )
    body = request_body(generation, COMPATIBLE)
    assert body["tool_choice"] == "none"
    assert body["max_tokens"] == 1024
    assert body["tools"] == [
        {
            "type": "function",
            "function": {"name": "book", "description": "Books.", "parameters": {"type": "object"}},
        }
    ]
    assert body["messages"] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "book", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "done", "tool_call_id": "a"},
    ]


@pytest.mark.parametrize(
    ("error", "option"),
    [
        ({"error": {"message": "Use 'max_completion_tokens'", "param": "max_tokens"}}, "max_tokens"),
        ({"error": {"message": "Unsupported value: 'temperature'", "code": "unsupported_value"}}, "temperature"),
        ({"message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]}}, "stream_options"),
        ({"error": {"message": "Invalid 'messages'", "param": "messages"}}, None),
        ({"error": {"message": "Unsupported 'max_completion_tokens'"}}, None),
    ],
)
def test_a_refused_option_is_recognised_in_every_dialect(error: dict[str, Any], option: str | None) -> None:
    sent: dict[str, object] = {"temperature": 1, "max_tokens": 5, "stream_options": {}, "model": "m"}
    assert refused_option(json.dumps(error).encode(), sent) == option


def test_a_refused_token_limit_is_renamed_once_then_dropped() -> None:
    body: dict[str, object] = {"model": "m", "max_tokens": 5, "temperature": 1}
    assert amend(body, ("max_tokens",)) == {"model": "m", "max_completion_tokens": 5, "temperature": 1}
    assert amend(body, ("max_tokens", "temperature", "max_completion_tokens")) == {"model": "m"}


def test_quirks_follow_the_server() -> None:
    assert quirks_of("https://api.openai.com/v1") is OPENAI
    assert quirks_of("http://localhost:11434/v1") is COMPATIBLE
    assert quirks_of("https://notopenai.com/v1") is COMPATIBLE
