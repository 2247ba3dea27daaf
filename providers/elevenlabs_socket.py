"""One speech socket to ElevenLabs, shared by the utterances of a call: routing, keep-alive, and what its end means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from providers.elevenlabs_wire import (
    CODE,
    MAX_CONTEXTS,
    VENDOR,
    ServerMessage,
    failure,
    keep_alive,
    read_message,
    unavailable,
)
from providers.errors import Garbled, ProviderError

log = structlog.get_logger(__name__)

KEEP_ALIVE_S = 10.0
"""After so long without a message from the vendor, one of ours resets its inactivity clock."""
SEND_S = 2.0


class ContextSink(Protocol):
    """Who listens to one context. Callbacks, so that the reader never waits for a listener."""

    @property
    def awaits_text(self) -> bool:
        """The vendor has had text of this context and more may come: its inactivity clock counts."""
        ...

    def on_message(self, message: ServerMessage) -> None:
        """Audio, word times or the end of the context."""
        ...

    def on_lost(self, error: ProviderError) -> None:
        """The context is gone before its end. Comes at most once, and last."""
        ...


class SpeechSocket:
    """An open socket and its reader task. `aclose` ends and awaits both.

    A context counts as open from `begin` until the vendor's `isFinal`, also when nobody listens any more (`forget`):
    the vendor counts the same way, and one context too many costs all of them.
    """

    def __init__(self, connection: ClientConnection, on_end: Callable[[SpeechSocket], None]) -> None:
        self._connection = connection
        self._on_end = on_end
        self._contexts: dict[str, ContextSink | None] = {}
        self._room = asyncio.Event()
        self._failure: ProviderError | None = None
        self._retired = False
        self._reader = asyncio.create_task(self._run(), name="elevenlabs-reader")

    @property
    def usable(self) -> bool:
        """New utterances may begin here."""
        return self._failure is None and not self._retired

    async def has_room(self, wait: float) -> bool:
        """Wait at most `wait` seconds until another context may be opened."""
        try:
            async with asyncio.timeout(wait):
                while len(self._contexts) >= MAX_CONTEXTS:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            return False
        return True

    def begin(self, context: str, sink: ContextSink) -> None:
        """Count a context and route what comes of it."""
        self._contexts[context] = sink

    def forget(self, context: str) -> None:
        """Nobody listens to that context any more; what still comes of it is dropped."""
        if context in self._contexts:
            self._contexts[context] = None
        self._end_if_idle()

    def discard(self, context: str) -> None:
        """A context that the vendor has never heard of is none."""
        self._contexts.pop(context, None)
        self._room.set()
        self._end_if_idle()

    def retire(self) -> None:
        """Begin nothing here any more, and end once nobody listens."""
        self._retired = True
        self._end_if_idle()

    async def send(self, frame: str) -> None:
        """Send one message. Raises ProviderError when the socket is lost or does not take it."""
        if self._failure is not None:
            raise self._failure
        try:
            async with asyncio.timeout(SEND_S):
                await self._connection.send(frame)
        except ConnectionClosed as closed:
            raise _closing(closed) from closed
        except TimeoutError as stuck:
            self.retire()
            raise unavailable("does not take text") from stuck

    async def aclose(self) -> None:
        """End the socket, within the connection's close timeout. Idempotent."""
        self._reader.cancel()
        await asyncio.wait([self._reader])
        # A reader cancelled before its first step has closed nothing.
        await self._connection.close()

    async def _run(self) -> None:
        error: ProviderError = unavailable("is no longer in use")
        try:
            while True:
                await self._read_one()
        except ConnectionClosed as closed:
            error = _closing(closed)
        except ProviderError as reported:
            error = reported
        finally:
            self._failure = error
            listeners = [sink for sink in self._contexts.values() if sink is not None]
            self._contexts.clear()
            self._room.set()
            for sink in listeners:
                sink.on_lost(error)
            log.info("speech_socket_ended", vendor=VENDOR, listeners=len(listeners), reason=str(error))
            try:
                await self._connection.close()
            finally:
                self._on_end(self)

    async def _read_one(self) -> None:
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                frame = await self._connection.recv()
        except TimeoutError:
            await self._keep_alive()
            return
        try:
            message = read_message(frame)
        except msgspec.DecodeError as unreadable:
            raise Garbled(f"{VENDOR} sent an unreadable frame", vendor=VENDOR, code=CODE) from unreadable
        self._route(message)

    async def _keep_alive(self) -> None:
        """Naming a context before its settings, or after its close, would create another one: those are left out."""
        waiting = [context for context, sink in self._contexts.items() if sink is not None and sink.awaits_text]
        for context in waiting or (None,):
            await self.send(keep_alive(context))

    def _route(self, message: ServerMessage) -> None:
        context = message.context
        if message.error and context not in self._contexts:
            raise failure(message.error, message.message or "")
        if context not in self._contexts:
            return
        sink = self._contexts[context]
        if message.error or message.final:
            self.discard(context)
        if sink is None:
            return
        if message.error:
            sink.on_lost(failure(message.error, message.message or ""))
        else:
            sink.on_message(message)

    def _end_if_idle(self) -> None:
        if self._retired and all(sink is None for sink in self._contexts.values()):
            self._reader.cancel()


def _closing(closed: ConnectionClosed) -> ProviderError:
    reason = closed.rcvd.reason if closed.rcvd else ""
    return failure(reason or f"connection closed ({closed.rcvd.code if closed.rcvd else 'no close frame'})")
