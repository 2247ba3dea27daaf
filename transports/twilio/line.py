"""A telephone line before it has a socket: what the carrier says it is, who lets it in, what it may cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from pipelines.medium import Medium, MediumSink


@dataclass(frozen=True, slots=True)
class StreamStart:
    """What the `start` frame said, and the line it said it on. `parameters` are those of our TwiML."""

    call_sid: str
    stream_sid: str
    account_sid: str
    parameters: dict[str, str]
    medium: Medium

    @property
    def call_id(self) -> str:
        """The call that the carrier claims this is; empty when not said."""
        return self.parameters.get("call_id", "")

    @property
    def key(self) -> str:
        """The one-time secret that proves it; empty when not said."""
        return self.parameters.get("key", "")


Admit = Callable[[StreamStart], MediumSink | None]
"""Gives the call that waits for this stream, or None: wrong secret, unknown call, used twice. May send at once."""


@dataclass(frozen=True, slots=True)
class LineLimits:
    """How long to wait (s) and how much to bear."""

    start_s: float = 5.0
    """From the handshake to the `start` frame."""
    silence_s: float = 30.0
    """Without any frame at all: the carrier is gone."""
    flood_frames: int = 2000
    """More frames than this within two seconds: twenty times what a call sends, so a stalled line may catch up."""
    unsent_bytes: int = 1024 * 1024
    """What may wait for a carrier that reads too slowly; over a minute of audio."""
    hang_up_s: float = 2.0
    """For the carrier to answer our close."""


class LineState(Enum):
    """The life of a media socket."""

    OPEN = auto()
    CONNECTED = auto()
    STARTED = auto()
    CLOSED = auto()


MOVES = {
    LineState.OPEN: {LineState.CONNECTED, LineState.CLOSED},
    LineState.CONNECTED: {LineState.STARTED, LineState.CLOSED},
    LineState.STARTED: {LineState.CLOSED},
    LineState.CLOSED: set[LineState](),
}
"""The legal transitions."""
