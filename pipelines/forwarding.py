"""Transfers the caller to somebody else (behaviour §3.6): what is queued is heard first, then the carrier is asked.

A carrier that refuses leaves the call as it was. The line is cut by the transfer itself, so its end while the carrier
is being asked is no hang-up until the carrier's answer says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from pipelines.events import CallEvents
from pipelines.ids import new_id
from pipelines.medium import Connect, Transfer, TransferFailed
from pipelines.session import Spawner
from pipelines.speaking.mouth import Mouth
from pipelines.speaking.utterance import Origin, Utterance
from pipelines.thinking.phrases import transfer
from wire.commands import CallForward
from wire.events import CallError, CallForwarded

log = structlog.get_logger(__name__)

DRAIN_SECONDS = 10.0
"""What is queued may be heard for so long before the transfer, and so may the message that announces it."""


class SpeakingCall(Spawner, Protocol):
    """The call that is transferred."""

    def say(self, utterance: Utterance) -> bool:
        """Queue speech of the server; that ends a hold."""
        ...


class Forwarding:
    """The transfer of one call. `transfer` is None where the medium cannot."""

    def __init__(self, transfer: Transfer | None, mouth: Mouth, events: CallEvents, call: SpeakingCall) -> None:
        self._transfer = transfer
        self._mouth = mouth
        self._events = events
        self._call = call
        self._asking = self._at_carrier = False
        self._gone: str | None = None
        self._end: Callable[[str], None] = lambda _: None
        self._language: Callable[[], str] = lambda: "en"

    def bind(self, end: Callable[[str], None], language: Callable[[], str]) -> None:
        """How to end the call, and what language the caller speaks now."""
        self._end = end
        self._language = language

    def start(self, command: CallForward) -> None:
        """Carry out `call.forward`. A second one while the first is under way is ignored."""
        if self._transfer is None:
            log.warning("forward_not_supported")
            return
        if self._asking:
            return
        try:
            connect = self._transfer(command.to)
        except TransferFailed as failure:
            # Before anything is said: nobody should hear of a transfer that cannot be.
            self._failed(failure)
            return
        self._asking = True
        self._call.spawn(self._forward(command, connect), "forward")

    def line_gone(self, reason: str) -> bool:
        """The line ended; True when it is too early to say why, and the call must not end yet."""
        if self._at_carrier:
            self._gone = reason
        return self._at_carrier

    async def _forward(self, command: CallForward, connect: Connect) -> None:
        await self._drained()
        message = command.message or (transfer(self._language()) if command.announce else "")
        if message:
            self._say(message)
            await self._drained()
        self._at_carrier = True
        try:
            await connect()
        except TransferFailed as failure:
            self._failed(failure)
            return
        self._events.publish(CallForwarded(to=command.to))
        self._end("forwarded")

    async def _drained(self) -> None:
        """What is queued is heard, or cut off when that takes too long."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._mouth.quiet()
        except TimeoutError:
            log.info("forward_cut_speech")
            self._mouth.clear()

    def _failed(self, failure: TransferFailed) -> None:
        self._asking = self._at_carrier = False
        if self._gone is not None:
            self._end(self._gone)
            return
        log.warning("forward_failed", error=str(failure))
        self._events.publish(CallError(code="FORWARD_FAILED", error=str(failure)))

    def _say(self, text: str) -> None:
        utterance = Utterance(new_id("msg"), "", Origin.GREETING, remembered=True)
        utterance.announced_text = text
        utterance.write(text)
        utterance.close()
        self._call.say(utterance)
