"""OpenAI's chat completions on loopback: strict about what a client sends, obedient about how to misbehave.

    async with OpenAiSimulator(lambda request: Reply("Hello there.")) as openai:
        ... base_url = openai.base_url ...

Each request is checked as the vendor checks it, recorded in `requests`, and answered by the script: a function of the
request, or a list of replies used up in order. Plain HTTP/1.1 with keep-alive, written here so that every byte of the
stream can be cut where a test wants it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from tests.simulators.openai_rules import JSON, ApiError, check_request

KEY = "sk-simulated"


@dataclass(frozen=True)
class CalledTool:
    """A tool call of the simulated model."""

    name: str
    arguments: str = "{}"
    id: str = ""


@dataclass(frozen=True)
class Reply:
    """One scripted answer. Delays are seconds; `write_size` cuts the stream into TCP writes of so many bytes."""

    text: str = ""
    tools: Sequence[CalledTool] = ()
    usage: bool = True
    first_token_delay: float = 0.0
    token_delay: float = 0.0
    write_size: int = 0
    status: int = 200
    retry_after: str | None = None
    error_code: str | None = None
    cut_after: int | None = None
    """Close the connection after so many text tokens, without an end mark."""
    error_after: int | None = None
    """Send an error event after so many text tokens."""
    clean_cut: bool = False
    """With `cut_after`: end the HTTP body as if all were well, still without an end mark."""
    interleaved: bool = False
    """Fragments of all tool calls mixed in common chunks."""
    ollama: bool = False
    """Every tool call whole, all with index 0, and `stop` as the reason to finish."""
    raw_events: Sequence[str] | None = None
    """Events to send instead of the ones made from the fields above."""


Script = Callable[["Request"], Reply] | Sequence[Reply]


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: JSON
    connection: int

    @property
    def last_user_text(self) -> str:
        """What the user said last."""
        texts = [entry["content"] for entry in self.body.get("messages", ()) if entry["role"] == "user"]
        return texts[-1] if texts else ""


@dataclass
class OpenAiSimulator:
    """The server. `refused_options` maps an option to the error code that a reasoning model answers it with."""

    script: Script = field(default_factory=lambda: lambda request: Reply(f"You said: {request.last_user_text}"))
    models: Sequence[str] | None = None
    """Known models; None takes any name."""
    refused_options: dict[str, str] = field(default_factory=dict[str, str])
    requests: list[Request] = field(default_factory=list[Request])
    connections: int = 0
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client went away before the end of its stream."""

    async def __aenter__(self) -> Self:
        self._clients: set[asyncio.Task[None]] = set()
        self._served = 0
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    @property
    def base_url(self) -> str:
        """Where clients find it, with `/v1`."""
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    @property
    def chats(self) -> list[JSON]:
        """Bodies of all requests for an answer."""
        return [request.body for request in self.requests if request.path == "/v1/chat/completions"]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        self.connections += 1
        number = self.connections
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while (request := await _read_request(reader, number)) is not None:
                    self.requests.append(request)
                    if not await self._serve(request, reader, writer):
                        break
        except asyncio.CancelledError:
            pass  # the simulator is being closed; asyncio would report a cancelled connection task as an error
        finally:
            self._clients.discard(task)
            writer.close()

    async def _serve(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection must be closed after it."""
        try:
            if request.headers.get("authorization") != f"Bearer {KEY}":
                raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
            if request.path == "/v1/models":
                listed = [{"id": name, "object": "model"} for name in self.models or ("gpt-test",)]
                await _send_json(writer, 200, {"object": "list", "data": listed})
                return True
            if request.path != "/v1/chat/completions":
                raise ApiError(404, f"Invalid URL ({request.path})")
            check_request(request.body, self.models, self.refused_options)
        except ApiError as error:
            await _send_json(writer, error.status, error.body)
            return True
        reply = self._next_reply(request)
        if reply.status != 200:
            headers = {} if reply.retry_after is None else {"retry-after": reply.retry_after}
            body = {"error": {"message": "scripted", "type": "server_error", "param": None, "code": reply.error_code}}
            await _send_json(writer, reply.status, body, headers)
            return True
        return await self._stream(request, reply, (reader, writer))

    def _next_reply(self, request: Request) -> Reply:
        if callable(self.script):
            return self.script(request)
        self._served += 1
        return self.script[self._served - 1]

    async def _stream(
        self, request: Request, reply: Reply, peer: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    ) -> bool:
        reader, writer = peer
        if not request.body.get("stream"):
            raise AssertionError("only streamed answers are simulated")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await asyncio.sleep(reply.first_token_delay)
        usage = reply.usage and request.body.get("stream_options") == {"include_usage": True}
        ended = False
        async for event in _events(reply, usage, request.body["model"]):
            if reader.at_eof() or writer.is_closing():
                self.abandoned.set()
                return False
            await _send_chunk(writer, f"data: {event}\n\n".encode(), reply.write_size)
            ended = event == "[DONE]"
        if not ended and not reply.clean_cut:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return not (reply.clean_cut and reply.cut_after is not None)


async def _events(reply: Reply, usage: bool, model: str) -> AsyncIterator[str]:
    """The data of the stream's events, in order, paced."""
    if reply.raw_events is not None:
        for raw in reply.raw_events:
            yield raw
        return
    yield _chunk(model, {"role": "assistant", "content": ""})
    tokens = [word if number == 0 else f" {word}" for number, word in enumerate(reply.text.split(" "))]
    for number, token in enumerate(tokens if reply.text else ()):
        if number == reply.cut_after:
            return
        if number == reply.error_after:
            yield json.dumps({"error": {"message": "The server had an error", "type": "server_error"}})
            return
        await asyncio.sleep(reply.token_delay)
        yield _chunk(model, {"content": token})
    for delta in _tool_deltas(reply):
        yield _chunk(model, delta)
    yield _chunk(model, {}, "tool_calls" if reply.tools and not reply.ollama else "stop")
    if usage:
        counts = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}
        yield json.dumps({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model}
                         | {"choices": [], "usage": counts})  # fmt: skip
    yield "[DONE]"


def _tool_deltas(reply: Reply) -> list[JSON]:
    ids = [tool.id or f"call_{number}" for number, tool in enumerate(reply.tools)]
    if reply.ollama:
        return [{"tool_calls": [_fragment(0, tool.name, tool.arguments, ids[number])]}
                for number, tool in enumerate(reply.tools)]  # fmt: skip
    heads = [_fragment(number, tool.name, "", ids[number]) for number, tool in enumerate(reply.tools)]
    halves = [(tool.arguments[: len(tool.arguments) // 2], tool.arguments[len(tool.arguments) // 2 :])
              for tool in reply.tools]  # fmt: skip
    if reply.interleaved:
        return [{"tool_calls": heads}] + [
            {"tool_calls": [_fragment(number, None, half[part]) for number, half in enumerate(halves)]}
            for part in (0, 1)
        ]
    deltas: list[JSON] = []
    for number, half in enumerate(halves):
        deltas.append({"tool_calls": [heads[number]]})
        deltas += [{"tool_calls": [_fragment(number, None, part)]} for part in half]
    return deltas


def _fragment(index: int, name: str | None, arguments: str, call_id: str | None = None) -> JSON:
    if name is None:
        return {"index": index, "function": {"arguments": arguments}}
    return {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _chunk(model: str, delta: JSON, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    frame = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model, "obfuscation": "x7"}
    return json.dumps({**frame, "choices": [choice], "usage": None}, ensure_ascii=False)


async def _send_chunk(writer: asyncio.StreamWriter, data: bytes, write_size: int) -> None:
    size = write_size or len(data)
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await writer.drain()
        if write_size:
            await asyncio.sleep(0)


async def _send_json(
    writer: asyncio.StreamWriter, status: int, body: JSON, headers: dict[str, str] | None = None
) -> None:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    writer.write(head.encode() + b"\r\n" + data)
    await writer.drain()


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    start, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(start.split(" ")[1], headers, json.loads(body) if body else {}, connection)
