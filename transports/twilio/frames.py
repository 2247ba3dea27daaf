"""Twilio Media Streams frames: bytes in, typed facts out, and back. No I/O, never raises.

JSON text frames; audio is base64 8 kHz µ-law (Twilio "Media Streams - WebSocket Messages"). Reading is one typed
msgspec pass that decodes the base64 straight into `bytes`; writing is byte concatenation: the fastest forms measured.
"""

from __future__ import annotations

from binascii import b2a_base64
from dataclasses import dataclass
from enum import StrEnum

import msgspec

MAX_FRAME_BYTES = 64 * 1024
"""A 20 ms frame has about 350 bytes; anything near this is not Twilio."""


class Fault(StrEnum):
    """Why a frame could not be read."""

    OVERSIZED = "oversized"
    MALFORMED = "malformed"


class _Frame(msgspec.Struct, frozen=True, tag_field="event", rename="camel"):
    """One message from the carrier. Fields nobody reads (sequence numbers, chunk, timestamp) are skipped unparsed."""


class ConnectedFrame(_Frame, frozen=True, tag="connected"):
    """The socket is open; the first frame."""

    protocol: str = ""


class MediaFormat(msgspec.Struct, frozen=True, rename="camel"):
    """What the audio is. Documented as a number, seen as a string."""

    encoding: str = "audio/x-mulaw"
    sample_rate: int | str = 8000

    @property
    def is_telephone(self) -> bool:
        """8 kHz µ-law, the only form we speak to the carrier."""
        return self.encoding == "audio/x-mulaw" and str(self.sample_rate) == "8000"


class StartBody(msgspec.Struct, frozen=True, rename="camel"):
    """Which call this is, and the parameters of our own TwiML."""

    call_sid: str
    account_sid: str = ""
    custom_parameters: dict[str, str] = {}
    media_format: MediaFormat = MediaFormat()


class StartFrame(_Frame, frozen=True, tag="start"):
    """Second frame, once."""

    stream_sid: str
    start: StartBody


class MediaBody(msgspec.Struct, frozen=True):
    """A piece of audio, usually 160 bytes; `track` is `inbound` for the caller."""

    payload: bytes
    track: str = "inbound"


class MediaFrame(_Frame, frozen=True, tag="media"):
    """Audio."""

    stream_sid: str
    media: MediaBody


class DtmfBody(msgspec.Struct, frozen=True):
    """A key: 0-9, *, #, A-D."""

    digit: str


class DtmfFrame(_Frame, frozen=True, tag="dtmf"):
    """The caller pressed a key."""

    stream_sid: str
    dtmf: DtmfBody


class MarkBody(msgspec.Struct, frozen=True):
    """The name we gave it."""

    name: str


class MarkFrame(_Frame, frozen=True, tag="mark"):
    """All audio sent before our mark of that name was played or cleared."""

    stream_sid: str
    mark: MarkBody


class StopFrame(_Frame, frozen=True, tag="stop"):
    """The call is over, or was taken off the stream."""

    stream_sid: str


CarrierFrame = ConnectedFrame | StartFrame | MediaFrame | DtmfFrame | MarkFrame | StopFrame

_decoder = msgspec.json.Decoder(CarrierFrame)


def read_frame(data: bytes | memoryview) -> CarrierFrame | Fault:
    """Read one text frame. An event of a name unknown to us is `MALFORMED` like any other nonsense."""
    if len(data) > MAX_FRAME_BYTES:
        return Fault.OVERSIZED
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Fault.MALFORMED


@dataclass(frozen=True, slots=True)
class FrameWriter:
    """Writes the three frames that Twilio accepts, for one stream."""

    clear: bytes
    _media: bytes
    _mark: bytes

    @classmethod
    def of(cls, stream_sid: str) -> FrameWriter:
        """A writer for that stream."""
        stream = b'","streamSid":' + msgspec.json.encode(stream_sid)
        return cls(
            clear=b'{"event":"clear' + stream + b"}",
            _media=b'{"event":"media' + stream + b',"media":{"payload":"',
            _mark=b'{"event":"mark' + stream + b',"mark":{"name":',
        )

    def media(self, audio: bytes) -> bytes:
        """8 kHz µ-law of any length, without header."""
        return self._media + b2a_base64(audio, newline=False) + b'"}}'

    def mark(self, name: str) -> bytes:
        """A mark after the audio sent so far."""
        return self._mark + msgspec.json.encode(name) + b"}}"
