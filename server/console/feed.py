"""What one open page of the console is told, as it happens."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from pipelines.metering import Reading
from pipelines.turn_times import TurnRecord
from server.console.messages import Answered, Calls, Happened, Level, Message, OneCall, Request, Transcript
from server.console.records import CallRecord, Records

log = structlog.get_logger(__name__)

MAX_WAITING: Final = 4000
"""Messages for a page that does not read; one more and it has to come back anew."""
_LEVELS_LIMIT: Final = 50
"""With so many waiting, loudness is left out: it is worth nothing later."""

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Request)


class Feed:
    """One page. Messages wait here, in order, until its socket takes them. Call `close` at the end."""

    def __init__(self, records: Records, org_id: str) -> None:
        self.org_id = org_id
        self.overrun = False
        """The page reads too slowly: it must go."""
        self._records = records
        self._waiting: deque[bytes] = deque()
        self._ready = asyncio.Event()
        self._followed: CallRecord | None = None
        self._deaf: Callable[[], None] | None = None
        records.listen(org_id, self)
        self.tell(Calls(calls=[record.summary for record in records.of_org(org_id)]))

    def tell(self, message: Message) -> None:
        """Queue a message."""
        if len(self._waiting) >= MAX_WAITING:
            self.overrun = True
        else:
            self._waiting.append(_encoder.encode(message))
        self._ready.set()

    async def next(self) -> str | None:
        """The next message as JSON; None when the page must go."""
        while not self._waiting:
            self._ready.clear()
            await self._ready.wait()
        return None if self.overrun else self._waiting.popleft().decode()

    def asked(self, text: str) -> None:
        """The page says something. What it cannot have is passed over: the call may have just gone."""
        try:
            request = _decoder.decode(text)
        except msgspec.MsgspecError:
            log.info("console_nonsense", org=self.org_id)
            return
        if request.follow is not None:
            self._follow(self._records.find(self.org_id, request.follow))
        if request.hang_up is not None:
            record = self._records.find(self.org_id, request.hang_up)
            if record is not None and record.call is not None:
                log.info("console_hang_up", org=self.org_id, call_id=request.hang_up)
                record.call.end("hangup")

    def close(self) -> None:
        """The page is gone."""
        self._follow(None)
        self._records.leave(self.org_id, self)

    # --- RecordListener ---

    def changed(self, record: CallRecord) -> None:
        """A line of the list."""
        self.tell(OneCall(call=record.summary))

    def happened(self, record: CallRecord, event: bytes) -> None:
        """Only of the call that the page follows."""
        if record is self._followed:
            self.tell(Happened(call_id=record.summary.call_id, event=msgspec.Raw(event)))

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
        events = [msgspec.Raw(event) for event in record.events]
        self.tell(Transcript(call_id=record.summary.call_id, events=events, turns=record.turns))
        if record.call is not None:
            self._deaf = record.call.watch_levels(self._level)

    def _level(self, source: str, reading: Reading) -> None:
        if self._followed is not None and len(self._waiting) < _LEVELS_LIMIT:
            call_id = self._followed.summary.call_id
            self.tell(Level(call_id=call_id, source=source, db=reading.energy_db, speech=reading.is_speech))
