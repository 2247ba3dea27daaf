"""Language models against the simulated vendor."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

import providers.openai as openai_models
from providers.base import Generation, LlmEvent, Message, TextDelta, ToolCalls, Usage
from providers.errors import Garbled, ProviderError, RateLimited, Refused, TimedOut, Unavailable
from providers.openai import OpenAiAccess, OpenAiModels
from providers.openai_wire import COMPATIBLE
from tests.simulators.openai import KEY, CalledTool, OpenAiSimulator, Reply
from wire.config import LlmConfig, Tool


@pytest.fixture
async def sim() -> AsyncIterator[OpenAiSimulator]:
    async with OpenAiSimulator() as running:
        yield running


@pytest.fixture
async def models(sim: OpenAiSimulator) -> AsyncIterator[OpenAiModels]:
    engine = OpenAiModels(OpenAiAccess(KEY, sim.base_url))
    yield engine
    await engine.aclose()


def _ask(text: str = "hi", *, model: str = "gpt-test", tools: tuple[Tool, ...] = ()) -> Generation:
    config = LlmConfig(provider="openai", model=model, temperature=0.4, max_tokens=300)
    return Generation(config, (Message("system", "Be brief."), Message("user", text)), tools)


async def _all(models: OpenAiModels, generation: Generation | None = None) -> list[LlmEvent]:
    return [event async for event in models.generate(generation or _ask())]


def _text(events: list[LlmEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.proves("row-32", "row-34", "row-208")
async def test_request_carries_model_verbatim_options_history_and_tools(
    sim: OpenAiSimulator, models: OpenAiModels
) -> None:
    tool = Tool(name="book", description="Books a table.")
    await _all(models, _ask("hello", model="gpt-9-chat-from-next-year", tools=(tool,)))
    (body,) = sim.chats
    assert body == {
        "model": "gpt-9-chat-from-next-year",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.4,
        "max_completion_tokens": 300,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "book",
                    "description": "Books a table.",
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
        "tool_choice": "auto",
    }
    assert sim.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.proves("row-32")
async def test_text_comes_as_it_is_written_then_tools_then_usage(sim: OpenAiSimulator, models: OpenAiModels) -> None:
    tools = (CalledTool("book", '{"day":"monday"}'), CalledTool("weather"))
    sim.script = [Reply("One moment, Zoë\u2028☕.", tools=tools, interleaved=True, write_size=5)]
    events = await _all(models)
    assert _text(events) == "One moment, Zoë\u2028☕."
    assert sum(isinstance(event, TextDelta) for event in events) == 3
    calls, usage = events[-2:]
    assert isinstance(calls, ToolCalls)
    assert [(call.name, call.arguments) for call in calls.calls] == [("book", '{"day":"monday"}'), ("weather", "{}")]
    assert usage == Usage(9, 12)


async def test_first_token_is_passed_on_before_the_rest_is_there(sim: OpenAiSimulator, models: OpenAiModels) -> None:
    sim.script = [Reply("one two three four five", token_delay=0.05)]
    async with aclosing(models.generate(_ask())) as events:
        assert await anext(events) == TextDelta("one")


async def test_closing_the_answer_closes_the_http_response(sim: OpenAiSimulator, models: OpenAiModels) -> None:
    sim.script = [Reply("word " * 500, token_delay=0.01)]
    events = models.generate(_ask())
    await anext(events)
    await events.aclose()
    await asyncio.wait_for(sim.abandoned.wait(), 5)


async def test_whole_answers_share_one_warm_connection(sim: OpenAiSimulator, models: OpenAiModels) -> None:
    await models.warm()
    await models.warm()
    assert [request.path for request in sim.requests] == ["/v1/models"]
    for _ in range(3):
        await _all(models)
    assert sim.connections == 1


async def test_warming_an_absent_server_is_no_error() -> None:
    models = OpenAiModels(OpenAiAccess(KEY, f"http://127.0.0.1:{_free_port()}/v1"))
    await models.warm()
    await models.aclose()
    await models.warm()


async def test_overload_is_retried_before_the_first_token(sim: OpenAiSimulator, models: OpenAiModels) -> None:
    sim.script = [Reply(status=429, retry_after="0.05"), Reply(status=503), Reply("Here.")]
    assert _text(await _all(models)) == "Here."
    assert len(sim.chats) == 3


async def test_a_cut_before_the_first_token_is_retried(sim: OpenAiSimulator, models: OpenAiModels) -> None:
    sim.script = [Reply("lost", cut_after=0), Reply("Here.")]
    assert _text(await _all(models)) == "Here."


async def test_retries_end(sim: OpenAiSimulator, models: OpenAiModels) -> None:
    sim.script = lambda request: Reply(status=500)
    with pytest.raises(Unavailable, match="500") as failed:
        await _all(models)
    assert failed.value.code == "LLM_ERROR"
    assert len(sim.chats) == 3


async def test_a_long_retry_after_is_told_instead_of_waited_for(sim: OpenAiSimulator, models: OpenAiModels) -> None:
    sim.script = [Reply(status=429, retry_after="30")]
    with pytest.raises(RateLimited) as failed:
        await _all(models)
    assert failed.value.retry_after == 30
    assert len(sim.chats) == 1


async def test_an_empty_purse_is_not_retried(sim: OpenAiSimulator, models: OpenAiModels) -> None:
    sim.script = [Reply(status=429, error_code="insufficient_quota")]
    with pytest.raises(Refused):
        await _all(models)


@pytest.mark.parametrize(
    "reply",
    [
        Reply("one two three", cut_after=1),
        Reply("one two three", cut_after=1, clean_cut=True),
        Reply("one two three", error_after=1),
    ],
    ids=["connection cut", "body ends without end mark", "error event"],
)
async def test_a_stream_that_breaks_after_the_first_token_ends_as_unavailable_with_its_text(
    sim: OpenAiSimulator, models: OpenAiModels, reply: Reply
) -> None:
    sim.script = [reply]
    events = models.generate(_ask())
    assert await anext(events) == TextDelta("one")
    with pytest.raises(Unavailable):
        await anext(events)
    assert len(sim.chats) == 1


async def test_garbage_is_garbled_and_odd_chunks_are_skipped(sim: OpenAiSimulator, models: OpenAiModels) -> None:
    odd = '{"choices":[{"delta":{"content":12}}]}'
    good = '{"choices":[{"delta":{"content":"ok"},"finish_reason":"stop"}]}'
    sim.script = [Reply(raw_events=[odd, good, "[DONE]"]), Reply(raw_events=["{nonsense", "[DONE]"])]
    assert _text(await _all(models)) == "ok"
    with pytest.raises(Garbled):
        await _all(models)


async def test_silence_before_and_inside_the_answer_has_a_deadline(
    sim: OpenAiSimulator, models: OpenAiModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    await models.warm()
    monkeypatch.setattr(openai_models, "FIRST_TOKEN_S", 0.2)
    sim.script = [Reply("late", first_token_delay=30), Reply("a b", token_delay=30)]
    with pytest.raises(TimedOut, match="silent") as failed:
        await _all(models)
    assert failed.value.code == "LLM_ERROR"
    monkeypatch.setattr(openai_models, "NEXT_TOKEN_S", 0.2)
    with pytest.raises(TimedOut):
        await _all(models)


async def test_options_a_reasoning_model_refuses_are_amended_once_and_remembered(
    sim: OpenAiSimulator,
) -> None:
    models = OpenAiModels(OpenAiAccess(KEY, sim.base_url), quirks=COMPATIBLE)
    sim.refused_options = {"temperature": "unsupported_value", "max_tokens": "unsupported_parameter"}
    assert _text(await _all(models, _ask("one"))) == "You said: one"
    assert [{"max_tokens", "temperature", "max_completion_tokens"} & body.keys() for body in sim.chats] == [
        {"temperature", "max_tokens"},
        {"max_tokens"},
        {"max_completion_tokens"},
    ]
    assert _text(await _all(models, _ask("two"))) == "You said: two"
    assert len(sim.chats) == 4
    await models.aclose()


async def test_no_answers_are_told_apart(sim: OpenAiSimulator, models: OpenAiModels) -> None:
    sim.models = ("gpt-test",)
    with pytest.raises(Refused, match="unheard-of"):
        await _all(models, _ask(model="unheard-of"))
    bad_key = OpenAiModels(OpenAiAccess("sk-secret-wrong", sim.base_url))
    with pytest.raises(Refused, match="401") as failed:
        await _all(bad_key)
    assert "secret" not in str(failed.value)
    assert "secret" not in repr(OpenAiAccess("sk-secret-wrong", sim.base_url))
    await bad_key.aclose()


async def test_an_unreachable_or_closed_server_is_unavailable() -> None:
    models = OpenAiModels(OpenAiAccess(KEY, f"http://127.0.0.1:{_free_port()}/v1"))
    with pytest.raises(Unavailable, match="reached"):
        await _all(models)
    await models.aclose()
    await models.aclose()
    with pytest.raises(ProviderError):
        await _all(models)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
