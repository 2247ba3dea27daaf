"""What a call needs of the medium that carries it, and what it offers the medium in return.

Transports implement `Medium` and push what they receive into a `MediumSink` (the call). Callbacks, not queues: a 20 ms
frame must reach the ears without waking a task. No method here blocks or raises for a peer that has gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from providers.base import AudioFormat


class TransferFailed(Exception):
    """The carrier did not connect the caller elsewhere. The text is safe to show to the agent."""


Connect = Callable[[], Awaitable[None]]
"""Connects the caller elsewhere, once. Raises TransferFailed; takes a few seconds at most."""

Transfer = Callable[[str], Connect]
"""How the caller is connected with that number or SIP address. Raises TransferFailed at once for what is neither."""


class MediumSink(Protocol):
    """The call, as its medium sees it."""

    def on_audio(self, audio: bytes) -> None:
        """The caller's audio, in the medium's format, any length."""
        ...

    def on_mark(self, name: str) -> None:
        """Everything sent before that mark has been played (or, after `clear`, thrown away)."""
        ...

    def on_digit(self, digit: str) -> None:
        """The caller pressed a key: 0-9, *, #, A-D."""
        ...

    def on_gone(self, reason: str) -> None:
        """The caller's side is gone: `hangup` or `disconnected`. Comes at most once."""
        ...


class Medium(Protocol):
    """A line to the caller."""

    audio: AudioFormat
    """The format both ways."""

    def send_audio(self, audio: bytes) -> None:
        """Hand over audio to be played after all that was sent before."""
        ...

    def send_mark(self, name: str) -> None:
        """Ask to be told (`on_mark`) when all audio sent so far has been played."""
        ...

    def send_clear(self) -> None:
        """Drop all audio that has not been played yet."""
        ...

    async def hang_up(self) -> None:
        """End the line from our side. Bounded (2 s), idempotent."""
        ...
