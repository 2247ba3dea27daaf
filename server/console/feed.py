"""What one open page of the console is told, as it happens."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from pipelines.call import Call
from pipelines.metering import Reading
from pipelines.turn_times import TurnRecord
from server.agents.calls import LiveCalls
from server.console.messages import Answered, Conversations, Happened, Level, Message, OneCall, Request, Transcript
from server.console.records import CallRecord, Records
from wire.events import CallEvent

log = structlog.get_logger(__name__)

MAX_WAITING: Final = 4000
"""Messages for a page that does not read; one more and it has to come back anew."""
MAX_BYTES: Final = 32 * 1024 * 1024
"""Likewise of their size."""
_LEVELS_LIMIT: Final = 50
"""With so many waiting, loudness is left out: it is worth nothing later."""

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Request)


class Feed:
    """One page. Messages wait here, in order, until its socket takes them. Call `close` at the end."""

    def __init__(self, records: Records, live: LiveCalls, org_id: str) -> None:
        """`live` is where calls are hung up; only those of the organisation."""
        self.org_id = org_id
        self.overrun = False
        """The page reads too slowly: it must go."""
        self._records = records
        self._live = live
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._ready = asyncio.Event()
        self._followed: CallRecord | None = None
        self._deaf: Callable[[], None] | None = None
        records.listen(org_id, self)
        self.tell(Conversations(calls=[record.summary for record in records.of_org(org_id)]))

    def tell(self, message: Message) -> None:
        """Queue a message."""
        encoded = _encoder.encode(message)
        if len(self._waiting) >= MAX_WAITING or self._bytes + len(encoded) > MAX_BYTES:
            self.overrun = True
        else:
            self._waiting.append(encoded)
            self._bytes += len(encoded)
        self._ready.set()

    async def next(self) -> str | None:
        """The next message as JSON; None when the page must go."""
        while not self._waiting and not self.overrun:
            self._ready.clear()
            await self._ready.wait()
        if self.overrun:
            return None
        message = self._waiting.popleft()
        self._bytes -= len(message)
        return message.decode()

    def asked(self, text: str) -> None:
        """The page says something. What it cannot have is passed over: the call may have just gone."""
        try:
            request = _decoder.decode(text)
        except (ValueError, RecursionError):
            log.info("console_nonsense", org=self.org_id)
            return
        if request.follow is not None:
            self._follow(self._records.find(self.org_id, request.follow))
        if request.hang_up is not None:
            self._hang_up(request.hang_up)

    def close(self) -> None:
        """The page is gone."""
        self._follow(None)
        self._records.leave(self.org_id, self)

    # --- RecordListener ---

    def changed(self, record: CallRecord) -> None:
        """A line of the list."""
        self.tell(OneCall(call=record.summary))

    def happened(self, record: CallRecord, event: CallEvent) -> None:
        """Only of the call that the page follows."""
        if record is self._followed:
            self.tell(Happened(call_id=record.summary.call_id, event=msgspec.Raw(_encoder.encode(event))))

    def answered(self, record: CallRecord, turn: TurnRecord) -> None:
        """As above."""
        if record is self._followed:
            self.tell(Answered(call_id=record.summary.call_id, turn=turn))

    def _follow(self, record: CallRecord | None) -> None:
        if self._deaf is not None:
            self._deaf()
            self._deaf = None
        self._followed = record
        if record is None:
            return
        call_id, shortened = record.summary.call_id, record.shortened
        self.tell(Transcript(call_id=call_id, events=record.events, turns=list(record.turns), shortened=shortened))
        if isinstance(record.live, Call):
            self._deaf = record.live.watch_levels(self._level)

    def _hang_up(self, call_id: str) -> None:
        live = self._live.find(self.org_id, call_id)
        if live is not None:
            log.info("console_hang_up", org=self.org_id, call_id=call_id)
            live.end("hangup")

    def _level(self, source: str, reading: Reading) -> None:
        if self._followed is not None and len(self._waiting) < _LEVELS_LIMIT:
            call_id = self._followed.summary.call_id
            self.tell(Level(call_id=call_id, source=source, db=reading.energy_db, speech=reading.is_speech))
