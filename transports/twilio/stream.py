"""One media socket of the carrier: the telephone line of one call.

The socket proves itself with the `start` frame: the one-time key that our TwiML gave to the carrier. Before that it may
only wait, and not for long. After it, the caller's audio goes straight into the call, untouched, without waking a task.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from pipelines.medium import MediumSink
from providers.base import MULAW_8K
from transports.twilio.frames import (
    CarrierFrame,
    ConnectedFrame,
    DtmfFrame,
    Fault,
    FrameWriter,
    MarkFrame,
    MediaFrame,
    StartFrame,
    StopFrame,
    read_frame,
)
from transports.twilio.line import MOVES, Admit, LineLimits, LineState, StreamStart

log = structlog.get_logger(__name__)

_DIGITS = frozenset("0123456789*#ABCD")


_FLOOD_WINDOW_S = 2.0


class TwilioStream(WSListener):
    """A `Medium` over one Twilio media socket."""

    audio = MULAW_8K

    def __init__(self, admit: Admit, limits: LineLimits | None = None) -> None:
        self.state = LineState.OPEN
        self._admit = admit
        self._limits = limits or LineLimits()
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport | None = None
        self._sink: MediumSink | None = None
        self._writer: FrameWriter | None = None
        self._stream_sid = ""
        self._log = log
        self._complained = False
        self._timer: asyncio.TimerHandle | None = None
        self._last_frame_at = 0.0
        self._window_began = 0.0
        self._window_frames = 0

    # --- Medium ---

    def send_audio(self, audio: bytes) -> None:
        """Hand over 8 kHz µ-law, to be played after all that was sent before."""
        if self._writer is not None:
            self._send(self._writer.media(audio))

    def send_mark(self, name: str) -> None:
        """Ask for an echo when everything sent so far has been played."""
        if self._writer is not None:
            self._send(self._writer.mark(name))

    def send_clear(self) -> None:
        """Make the carrier forget what it has not played; it then echoes all marks at once."""
        if self._writer is not None:
            self._send(self._writer.clear)

    async def hang_up(self) -> None:
        """Close the socket, which ends our TwiML and so the call. `on_gone` does not come afterwards."""
        transport = self._transport
        self._end()
        if transport is None or transport.is_disconnected:
            return
        transport.send_close(WSCloseCode.OK)
        # Reading on until the carrier closes too: unread audio in our socket would turn the close into a reset.
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.hang_up_s):
                    await transport.wait_disconnected()
        finally:
            transport.disconnect(graceful=False)

    # --- the socket ---

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done: the carrier has to say soon which call this is."""
        self._transport = transport
        self._last_frame_at = self._window_began = self._loop.time()
        self._timer = self._loop.call_later(self._limits.start_s, self._start_is_late)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Everything the carrier sends, pings aside."""
        if frame.msg_type == WSMsgType.CLOSE:
            self._peer_closed(transport)
        elif self.state is LineState.CLOSED or transport.is_close_frame_sent:
            return
        elif frame.msg_type != WSMsgType.TEXT or not frame.fin:
            if frame.msg_type != WSMsgType.PONG:
                self._drop("not_text")
        elif self._is_flood():
            self._drop("flood")
        else:
            try:
                self._receive(read_frame(frame.get_payload_as_memoryview()))
            except Exception:  # noqa: BLE001 - the root of this socket: a fault of the call must not go unseen, nor reach others
                self._log.exception("twilio_stream_failed")
                self._drop("internal", WSCloseCode.INTERNAL_ERROR)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The socket is gone. When nobody said goodbye, this is the goodbye."""
        self._left(transport)
        self._transport = None

    # --- receiving ---

    def _receive(self, frame: CarrierFrame | Fault) -> None:
        match frame:
            case Fault():
                self._reject(frame.value)
            case ConnectedFrame():
                if self.state is LineState.OPEN:
                    self._move(LineState.CONNECTED)
            case StartFrame():
                self._start(frame)
            case _ if self.state is not LineState.STARTED or self._sink is None:
                self._drop("before_start")
            case _ if frame.stream_sid != self._stream_sid:
                self._complain("wrong_stream")
            case MediaFrame():
                if frame.media.track == "inbound":
                    self._sink.on_audio(frame.media.payload)
            case MarkFrame():
                self._sink.on_mark(frame.mark.name)
            case DtmfFrame():
                self._digit(frame.dtmf.digit, self._sink)
            case StopFrame():
                self._gone("hangup")
                self._close(WSCloseCode.OK)

    def _start(self, frame: StartFrame) -> None:
        if self.state is not LineState.CONNECTED:
            self._reject("second_start" if self.state is LineState.STARTED else "before_connected")
            return
        if not frame.start.media_format.is_telephone:
            self._drop("media_format")
            return
        self._stream_sid = frame.stream_sid
        self._writer = FrameWriter.of(frame.stream_sid)
        self._move(LineState.STARTED)
        body = frame.start
        start = StreamStart(body.call_sid, frame.stream_sid, body.account_sid, body.custom_parameters, self)
        self._log = log.bind(stream_sid=frame.stream_sid, call_sid=body.call_sid)
        sink = self._admit(start)
        if sink is None:
            self._drop("not_admitted")
        elif self._is_open():  # the call may have hung up at once
            self._sink = sink
            self._watch_silence()

    def _digit(self, digit: str, sink: MediumSink) -> None:
        if digit in _DIGITS:
            sink.on_digit(digit)
        else:
            self._complain("digit")

    def _left(self, transport: WSTransport) -> None:
        if self._is_open() and transport.is_close_frame_sent:
            # The websocket layer closed on its own: an oversized or otherwise illegal frame.
            self._complain("websocket")
        self._gone("hangup")

    def _peer_closed(self, transport: WSTransport) -> None:
        self._left(transport)
        transport.send_close(WSCloseCode.OK)
        transport.disconnect(graceful=False)

    def _is_flood(self) -> bool:
        now = self._last_frame_at = self._loop.time()
        if now - self._window_began >= _FLOOD_WINDOW_S:
            self._window_began, self._window_frames = now, 0
        self._window_frames += 1
        return self._window_frames > self._limits.flood_frames

    # --- deadlines ---

    def _start_is_late(self) -> None:
        self._drop("no_start")

    def _watch_silence(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._last_frame_at + self._limits.silence_s
        if self._loop.time() >= due:
            self._drop("silent")
        else:
            self._timer = self._loop.call_at(due, self._watch_silence)

    # --- sending and ending ---

    def _send(self, frame: bytes) -> None:
        transport = self._transport
        if transport is None or self.state is LineState.CLOSED:
            return
        transport.send(WSMsgType.TEXT, frame)
        if transport.underlying_transport.get_write_buffer_size() > self._limits.unsent_bytes:
            self._drop("slow_reader")

    def _reject(self, fault: str) -> None:
        """Overlook a bad frame of an admitted call; a stranger gets no second chance."""
        if self.state is LineState.STARTED:
            self._complain(fault)
        else:
            self._drop(fault)

    def _complain(self, fault: str) -> None:
        """Log the first fault of this socket only: whoever sends garbage must not fill the disk."""
        if not self._complained:
            self._complained = True
            self._log.warning("twilio_stream_fault", fault=fault, state=self.state.name.lower())

    def _drop(self, fault: str, code: WSCloseCode = WSCloseCode.POLICY_VIOLATION) -> None:
        """Give the line up from our side."""
        self._complain(fault)
        self._gone("disconnected")
        self._close(code)

    def _gone(self, reason: str) -> None:
        if self.state is LineState.CLOSED:
            return
        sink = self._sink
        self._end()
        if sink is None:
            return
        try:
            sink.on_gone(reason)
        except Exception:  # noqa: BLE001 - as above, and the socket still has to be closed
            self._log.exception("twilio_stream_failed")

    def _end(self) -> None:
        if self.state is not LineState.CLOSED:
            self._move(LineState.CLOSED)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sink = self._writer = None

    def _close(self, code: WSCloseCode) -> None:
        transport = self._transport
        if transport is not None and not transport.is_disconnected:
            transport.send_close(code)
            # Not graceful: a peer that does not read could keep the socket open for ever.
            transport.disconnect(graceful=False)

    def _is_open(self) -> bool:
        return self.state is not LineState.CLOSED

    def _move(self, to: LineState) -> None:
        if to not in MOVES[self.state]:
            raise RuntimeError(f"a media socket cannot go from {self.state.name} to {to.name}")
        self.state = to
