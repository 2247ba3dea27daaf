"""The simulated OpenAI, driven by the vendor's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import APIError, APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError, RateLimitError

from tests.simulators.openai import KEY, CalledTool, OpenAiSimulator, Reply

USER: Any = [{"role": "user", "content": "hi"}]
TOOLS: Any = [{"type": "function", "function": {"name": "book", "parameters": {"type": "object"}}}]


@pytest.fixture
async def sim() -> AsyncIterator[OpenAiSimulator]:
    async with OpenAiSimulator() as running:
        yield running


@pytest.fixture
async def client(sim: OpenAiSimulator) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=KEY, base_url=sim.base_url, max_retries=0) as official:
        yield official


async def test_official_client_reads_text_and_usage_whatever_the_write_boundaries(
    sim: OpenAiSimulator, client: AsyncOpenAI
) -> None:
    sim.script = [Reply("Köche grüßen ☕ \u2028 gern", write_size=3)]
    text, usage = "", None
    stream = await client.chat.completions.create(
        model="gpt-x", messages=USER, stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
    assert text == "Köche grüßen ☕ \u2028 gern"
    assert usage is not None
    assert usage.total_tokens == 21


@pytest.mark.parametrize("interleaved", [True, False])
async def test_official_client_accumulates_parallel_tool_calls(
    sim: OpenAiSimulator, client: AsyncOpenAI, interleaved: bool
) -> None:
    tools = (CalledTool("book", '{"day":"monday"}'), CalledTool("weather", '{"place":"Rome"}'))
    sim.script = [Reply("One moment.", tools=tools, interleaved=interleaved)]
    async with client.chat.completions.stream(model="gpt-x", messages=USER, tools=TOOLS) as stream:
        completion = await stream.get_final_completion()
    calls: Any = completion.choices[0].message.tool_calls
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
        ("call_0", "book", '{"day":"monday"}'),
        ("call_1", "weather", '{"place":"Rome"}'),
    ]


async def test_official_client_recognises_every_refusal(sim: OpenAiSimulator, client: AsyncOpenAI) -> None:
    sim.script = [Reply(status=429, retry_after="1"), Reply(status=503)]
    with pytest.raises(RateLimitError):
        await client.chat.completions.create(model="gpt-x", messages=USER, stream=True)
    with pytest.raises(APIStatusError, match="503"):
        await client.chat.completions.create(model="gpt-x", messages=USER, stream=True)
    sim.models = ("gpt-x",)
    with pytest.raises(NotFoundError):
        await client.chat.completions.create(model="gpt-y", messages=USER, stream=True)
    with pytest.raises(BadRequestError, match="safe_prompt"):
        await client.chat.completions.create(
            model="gpt-x", messages=USER, stream=True, extra_body={"safe_prompt": True}
        )
    orphan: Any = [*USER, {"role": "tool", "tool_call_id": "nobody", "content": "1"}]
    with pytest.raises(BadRequestError, match="tool"):
        await client.chat.completions.create(model="gpt-x", messages=orphan, stream=True)


async def test_official_client_meets_errors_and_cuts_inside_the_stream(
    sim: OpenAiSimulator, client: AsyncOpenAI
) -> None:
    sim.script = [Reply("one two three", error_after=1), Reply("one two three", cut_after=1)]
    for _ in range(2):
        stream = await client.chat.completions.create(model="gpt-x", messages=USER, stream=True)
        with pytest.raises(APIError):
            async for _chunk in stream:
                pass


async def test_official_client_lists_models_over_one_kept_connection(sim: OpenAiSimulator, client: AsyncOpenAI) -> None:
    sim.models = ("a", "b")
    for _ in range(2):
        assert [model.id async for model in client.models.list()] == ["a", "b"]
    assert sim.connections == 1
