"""Language models of OpenAI and of every server that speaks its chat completions.

The official client does transport, pooling and authentication; the stream is read by `providers.openai_stream`, which
knows when an answer was cut short and survives chunks that only resemble the vendor's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
import structlog

from providers.base import Generation, LlmEvent, TextDelta
from providers.errors import Garbled, ProviderError, RateLimited, Refused, TimedOut, Unavailable
from providers.openai_stream import Answer, EventLines, StreamFailed
from providers.openai_wire import OPENAI, JsonObject, Quirks, amend, error_facts, refused_option, request_body

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

log = structlog.get_logger(__name__)

CODE = "LLM_ERROR"
CONNECT_S = 2.0
FIRST_TOKEN_S = 10.0
"""From the request to the first event of the answer, retries included: how long a caller may hear nothing."""
NEXT_TOKEN_S = 10.0
WARM_S = 2.0
DRAIN_S = 0.1
RETRIES = 2
RETRY_FIRST_S = 0.2
PATIENCE_S = 2.0
"""The longest `retry-after` that is waited for while somebody is on the line."""
POOL_KEEP_S = 120.0
"""How long an idle connection stays in the pool. The client's own 5 s would cost a TLS handshake almost every turn."""
_REMEMBERED_MODELS = 256


@dataclass(frozen=True, slots=True)
class OpenAiAccess:
    """Where the server is (`base_url` includes `/v1`) and the key for it; empty for servers that want none."""

    api_key: str = field(repr=False)
    base_url: str


class _OptionRefused(Exception):
    def __init__(self, option: str, refusal: Refused) -> None:
        super().__init__(option)
        self.option = option
        self.refusal = refusal


class OpenAiModels:
    """`providers.base.LanguageModel` over chat completions; one object serves all calls."""

    def __init__(self, access: OpenAiAccess, *, quirks: Quirks = OPENAI) -> None:
        self._access = access
        self._quirks = quirks
        self._building = asyncio.Lock()
        self._client: AsyncOpenAI | None = None
        self._closed = False
        self._used_at: float | None = None
        self._refused: dict[str, tuple[str, ...]] = {}

    async def warm(self) -> None:
        """Put one connection into the pool, unless there was traffic a moment ago. Never raises."""
        now = asyncio.get_running_loop().time()
        if self._used_at is not None and now - self._used_at < POOL_KEEP_S / 2:
            return
        try:
            client = await self._opened()
            import httpx2
            from openai import OpenAIError

            try:
                async with asyncio.timeout(WARM_S):
                    await client.get("/models", cast_to=httpx2.Response)
                self._used_at = now
            except (TimeoutError, OpenAIError, httpx2.HTTPError) as error:
                log.info("llm_not_warmed", vendor=self._quirks.vendor, error=type(error).__name__)
        except Unavailable:
            return

    async def generate(self, generation: Generation) -> AsyncGenerator[LlmEvent, None]:
        """Stream one answer; closing the generator closes the HTTP response.

        Until the first event of the answer, an overloaded or unreachable server is asked again (at most `RETRIES`
        times) and an option that the model refuses is left out. Raises ProviderError with code LLM_ERROR.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FIRST_TOKEN_S
        model = generation.config.model
        wanted = request_body(generation, self._quirks)
        failures = 0
        while True:
            begun = False
            refused = self._refused.get(model, ())
            try:
                async with aclosing(self._attempt(amend(wanted, refused), deadline)) as events:
                    async for event in events:
                        begun = True
                        yield event
                return
            except _OptionRefused as answer:
                if answer.option in refused:
                    raise answer.refusal from answer
                log.info("llm_option_refused", vendor=self._quirks.vendor, model=model, option=answer.option)
                self._remember(model, (*refused, answer.option))
            except (RateLimited, Unavailable) as error:
                failures += 1
                wait = _patience(error, failures)
                if begun or failures > RETRIES or wait is None or loop.time() + wait >= deadline:
                    raise
                log.info("llm_retry", vendor=self._quirks.vendor, failed=failures, wait=wait, error=str(error))
                await asyncio.sleep(wait)

    async def aclose(self) -> None:
        """Close the pool. Idempotent."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _attempt(self, body: JsonObject, deadline: float) -> AsyncGenerator[LlmEvent, None]:
        """One request and its answer."""
        loop = asyncio.get_running_loop()
        answer, lines = Answer(), EventLines()
        async with self._response(body, deadline) as pieces:
            while not answer.done and (piece := await self._next(pieces, deadline)):
                events = self._cut(lines, piece)
                if events:
                    deadline = loop.time() + NEXT_TOKEN_S
                for data in events:
                    if text := self._read(answer, data):
                        yield TextDelta(text)
            if not answer.complete:
                raise self._unavailable("cut the answer short")
            for event in answer.end():
                yield event
            self._used_at = loop.time()
            await _drain(pieces)

    @asynccontextmanager
    async def _response(self, body: JsonObject, deadline: float) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """Send the request; gives the pieces of the answer's body and closes the response in the end."""
        client = await self._opened()
        import httpx2
        from openai import APIConnectionError, APIStatusError

        # The body is whole already: as `extra_body` it goes out as it is, not rewritten field by field.
        request = client.chat.completions.with_streaming_response.create(
            model=str(body["model"]), messages=[], stream=True, extra_body=body
        )
        try:
            async with asyncio.timeout_at(deadline):
                response = await request.__aenter__()
        except TimeoutError as late:
            raise self._timed_out("did not answer in time") from late
        except APIStatusError as refusal:
            raise self._status_error(refusal, body) from refusal
        except APIConnectionError as broken:
            raise self._unavailable("cannot be reached") from broken
        try:
            yield response.iter_bytes()
        except httpx2.HTTPError as broken:
            raise self._unavailable("lost the connection") from broken
        finally:
            await response.close()

    async def _next(self, pieces: AsyncIterator[bytes], deadline: float) -> bytes:
        """The next piece of the body, empty at its end."""
        try:
            async with asyncio.timeout_at(deadline):
                return await anext(pieces, b"")
        except TimeoutError as late:
            raise self._timed_out("went silent") from late

    def _cut(self, lines: EventLines, piece: bytes) -> list[bytes]:
        try:
            return lines.feed(piece)
        except ValueError as endless:
            raise Garbled(
                f"{self._quirks.vendor} sent no event stream", vendor=self._quirks.vendor, code=CODE
            ) from endless

    def _read(self, answer: Answer, data: bytes) -> str:
        try:
            return answer.feed(data)
        except StreamFailed as failed:
            raise self._unavailable("reported an error inside the answer") from failed
        except msgspec.ValidationError:
            log.info("llm_event_ignored", vendor=self._quirks.vendor, size=len(data))
            return ""
        except msgspec.DecodeError as unreadable:
            raise self._garbled("sent an event that is no JSON") from unreadable

    async def _opened(self) -> AsyncOpenAI:
        """The client. Loading its package takes most of a second, so that happens beside the event loop."""
        if self._closed:
            raise self._unavailable("is no longer in use")
        async with self._building:
            if self._client is None:
                self._client = await asyncio.to_thread(_build, self._access)
        return self._client

    def _remember(self, model: str, refused: tuple[str, ...]) -> None:
        """So that the next turn does not pay for the same refusal; among very many models the oldest is forgotten."""
        if len(self._refused) >= _REMEMBERED_MODELS:
            del self._refused[next(iter(self._refused))]
        self._refused[model] = refused

    def _status_error(self, refusal: APIStatusError, body: JsonObject) -> ProviderError | _OptionRefused:
        vendor, status = self._quirks.vendor, refusal.status_code
        content = refusal.response.content
        facts = error_facts(content)
        message = f"{vendor} answered HTTP {status}" + (f" ({', '.join(facts)})" if facts else "")
        if status == HTTPStatus.TOO_MANY_REQUESTS and "insufficient_quota" not in facts:
            wait = _seconds(refusal.response.headers.get("retry-after"))
            return RateLimited(message, vendor=vendor, code=CODE, retry_after=wait)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT):
            return Unavailable(message, vendor=vendor, code=CODE)
        if status == HTTPStatus.NOT_FOUND:
            message += f": model {body['model']}"
        error = Refused(message, vendor=vendor, code=CODE)
        if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
            option = refused_option(content, body)
            return _OptionRefused(option, error) if option else error
        return error

    def _unavailable(self, what: str) -> Unavailable:
        return Unavailable(f"{self._quirks.vendor} {what}", vendor=self._quirks.vendor, code=CODE)

    def _garbled(self, what: str) -> Garbled:
        return Garbled(f"{self._quirks.vendor} {what}", vendor=self._quirks.vendor, code=CODE)

    def _timed_out(self, what: str) -> TimedOut:
        return TimedOut(f"{self._quirks.vendor} {what}", vendor=self._quirks.vendor, code=CODE)


def _build(access: OpenAiAccess) -> AsyncOpenAI:
    import httpx2
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    # Only connecting has a limit here: how long an answer may take is counted per event, not per read.
    timeout = httpx2.Timeout(None, connect=CONNECT_S)
    limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=POOL_KEEP_S)
    return AsyncOpenAI(
        api_key=access.api_key or "none",
        base_url=access.base_url,
        max_retries=0,
        timeout=timeout,
        http_client=DefaultAsyncHttpxClient(timeout=timeout, limits=limits),
    )


def _patience(error: ProviderError, failures: int) -> float | None:
    """Seconds to wait before asking again; None when the vendor wants more than a caller can wait."""
    wait = RETRY_FIRST_S * 2 ** (failures - 1)
    if isinstance(error, RateLimited) and error.retry_after is not None:
        wait = max(wait, error.retry_after)
    return wait if wait <= PATIENCE_S else None


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read the end of the body, which HTTP/1.1 needs before the connection can serve again; not waited for long."""
    try:
        async with asyncio.timeout(DRAIN_S):
            async for _ in pieces:
                pass
    except TimeoutError:
        return


def _seconds(retry_after: str | None) -> float | None:
    try:
        return float(retry_after) if retry_after else None
    except ValueError:
        return None
