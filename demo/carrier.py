"""The carrier between a software telephone and a gateway: one media stream, as Twilio runs it.

Strict as the vendor: a frame that Twilio would not accept fails the line with `ProtocolViolation`.
"""

from __future__ import annotations

import asyncio
import logging
from binascii import b2a_base64
from contextlib import suppress
from secrets import token_hex
from typing import Protocol

import msgspec
from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,  # pyright: ignore[reportUnknownVariableType]
)

from demo.dialling import Answer, Dial, DialFailed
from demo.telephone import FRAME_BYTES, RATE, Played, PlayOut

_GOODBYE_S = 2.0
_KEYS = frozenset("0123456789*#ABCD")

# What goes wrong is raised to whoever holds the telephone; the library need not tell it as well.
_socket_log = logging.getLogger("picows.caller")
_socket_log.setLevel(logging.CRITICAL)


class ProtocolViolation(Exception):
    """The gateway sent what Twilio would have refused (its error 31924)."""


class _Outbound(msgspec.Struct, tag_field="event", rename="camel", forbid_unknown_fields=True):
    stream_sid: str


class _MediaBody(msgspec.Struct, forbid_unknown_fields=True):
    payload: bytes


class _Media(_Outbound, tag="media", forbid_unknown_fields=True):
    media: _MediaBody


class _MarkBody(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class _Mark(_Outbound, tag="mark", forbid_unknown_fields=True):
    mark: _MarkBody


class _Clear(_Outbound, tag="clear", forbid_unknown_fields=True):
    pass


_decoder = msgspec.json.Decoder(_Media | _Mark | _Clear)


class Telephone(Protocol):
    """Whoever holds the line."""

    def on_played(self, played: Played) -> None:
        """Time has passed on the line."""
        ...

    def on_cleared(self, dropped_ms: float) -> None:
        """The gateway took back what was waiting to be played."""
        ...

    def on_ended(self, reason: str) -> None:
        """The line is closed: by the `gateway`, by the `caller`, `lost`, or for a `fault`. Comes once."""
        ...


class CarrierLine(WSListener):
    """One call's media stream. `max_lead_ms`: how far ahead of real time the gateway may send."""

    def __init__(self, dial: Dial, telephone: Telephone, max_lead_ms: float | None = None) -> None:
        self.play = PlayOut(0.0)
        self.marks: list[str] = []
        """Names of the marks echoed, in order."""
        self.max_lead_seen_ms = 0.0
        self.fault: Exception | None = None
        """Why the line failed: a `ProtocolViolation`, or a bug of ours."""
        self.ended = asyncio.Event()
        self._dial = dial
        self._telephone = telephone
        self._max_lead_ms = max_lead_ms
        self._loop = asyncio.get_running_loop()
        self._stream_sid = "MZ" + token_hex(16)
        self._sequence = 0
        self._chunk = 0
        self._transport: WSTransport | None = None
        self._mark_timer: asyncio.TimerHandle | None = None
        self._reason = "gateway"

    async def open(self, answer: Answer) -> None:
        """Connect the stream that the gateway's TwiML asked for. Raises DialFailed."""
        url = self._dial.reachable(answer.stream_url)
        headers = self._dial.signature(answer.stream_url, {})
        try:
            transport, _ = await ws_connect(lambda: self, url, extra_headers=headers, logger_name=_socket_log)
        except (WSError, OSError, TimeoutError) as error:
            raise DialFailed(f"no media stream at {url}: {error}") from error
        self._transport = transport
        transport.send(WSMsgType.TEXT, b'{"event":"connected","protocol":"Call","version":"1.0.0"}')
        start = {
            "streamSid": self._stream_sid,
            "accountSid": self._dial.account_sid,
            "callSid": self._dial.call_sid,
            "tracks": ["inbound"],
            "customParameters": answer.parameters,
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1},
        }
        self._send("start", b'"start":' + msgspec.json.encode(start))
        self.play = PlayOut(self._loop.time())

    def send_frame(self, mulaw: bytes) -> None:
        """The next 20 ms from the microphone."""
        timestamp = self._chunk * FRAME_BYTES * 1000 // RATE
        self._chunk += 1
        body = b'"media":{"track":"inbound","chunk":"%d","timestamp":"%d","payload":"' % (self._chunk, timestamp)
        self._send("media", body + b2a_base64(mulaw, newline=False) + b'"}')

    def send_key(self, digit: str) -> None:
        """A key was pressed. Raises ValueError for what no telephone has."""
        if digit not in _KEYS:
            raise ValueError(f"no such key: {digit!r}")
        self._send("dtmf", f'"dtmf":{{"track":"inbound_track","digit":"{digit}"}}'.encode())

    def advance(self) -> None:
        """Let the play-out catch up with the clock."""
        self._after(self.play.advance(self._loop.time()))

    async def hang_up(self) -> None:
        """`stop`, then close. Idempotent, takes at most 2 s."""
        transport = self._transport
        if transport is None or self.ended.is_set():
            return
        self._reason = "caller"
        body = f'"stop":{{"accountSid":"{self._dial.account_sid}","callSid":"{self._dial.call_sid}"}}'
        self._send("stop", body.encode())
        transport.send_close(WSCloseCode.OK)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self.ended.wait()
        finally:
            transport.disconnect(graceful=False)

    def vanish(self, reason: str = "lost") -> None:
        """Lose the connection without a word."""
        if self._transport is not None and not self.ended.is_set():
            self._reason = reason
            self._transport.disconnect(graceful=False)

    # --- the socket ---

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A frame from the gateway; pings are answered below us."""
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        elif self.fault is None:
            try:
                text = frame.msg_type == WSMsgType.TEXT and frame.fin
                self._after(self._obey(frame.get_payload_as_bytes() if text else b""))
            except Exception as fault:  # noqa: BLE001 - the root of this socket; whoever holds the telephone raises it
                self.fault = fault
                self.vanish("fault")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The line is closed."""
        if self._mark_timer is not None:
            self._mark_timer.cancel()
        self._telephone.on_played(self.play.advance(self._loop.time()))
        self.ended.set()
        self._telephone.on_ended(self._reason)

    def _obey(self, data: bytes) -> Played:
        now = self._loop.time()
        try:
            frame = _decoder.decode(data)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ProtocolViolation(f"not a frame that Twilio takes: {error}") from error
        if frame.stream_sid != self._stream_sid:
            raise ProtocolViolation(f"a frame for another stream: {frame.stream_sid}")
        if isinstance(frame, _Mark):
            return self.play.mark(frame.mark.name, now)
        if isinstance(frame, _Clear):
            self._after(self.play.advance(now))
            played = self.play.clear(now)
            self._telephone.on_cleared(played.dropped_ms)
            return played
        if not frame.media.payload or frame.media.payload.startswith(b"RIFF"):
            raise ProtocolViolation("media without audio, or with a file header")
        played = self.play.append(frame.media.payload, now)
        lead_ms = self.play.buffered_ms
        self.max_lead_seen_ms = max(self.max_lead_seen_ms, lead_ms)
        if self._max_lead_ms is not None and lead_ms > self._max_lead_ms:
            raise ProtocolViolation(f"{lead_ms:.0f} ms ahead of real time, {self._max_lead_ms:.0f} are allowed")
        return played

    def _after(self, played: Played) -> None:
        for name in played.marks:
            self.marks.append(name)
            self._send("mark", b'"mark":{"name":' + msgspec.json.encode(name) + b"}")
        if self._mark_timer is not None:
            self._mark_timer.cancel()
            self._mark_timer = None
        due = self.play.next_mark_at()
        if due is not None:
            self._mark_timer = self._loop.call_at(due, self.advance)
        self._telephone.on_played(played)

    def _send(self, event: str, body: bytes) -> None:
        if self._transport is None or self.ended.is_set():
            return
        self._sequence += 1
        head = f'{{"event":"{event}","sequenceNumber":"{self._sequence}","streamSid":"{self._stream_sid}",'
        self._transport.send(WSMsgType.TEXT, head.encode() + body + b"}")
