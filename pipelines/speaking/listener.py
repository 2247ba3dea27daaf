"""What the mouth tells and asks the call, and what stopping it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipelines.speaking.utterance import Utterance
from providers.errors import ProviderError


class MouthListener(Protocol):
    """What the mouth tells and asks the call."""

    def may_play(self, utterance: Utterance) -> bool:
        """Is this the moment for the caller to hear it?"""
        ...

    def on_audible(self, utterance: Utterance) -> None:
        """Its first audio has left."""
        ...

    def on_reached(self, utterance: Utterance) -> None:
        """Its first sound is in the caller's ear."""
        ...

    def on_record(self, utterance: Utterance, heard: str) -> None:
        """These words of it were heard and count."""
        ...

    def on_silent(self) -> None:
        """Nothing is being said and nothing is about to be."""
        ...

    def on_mouth_trouble(self, error: ProviderError) -> None:
        """The voice failed for one utterance."""
        ...


@dataclass(frozen=True, slots=True)
class Silenced:
    """What stopping the bot did. `played_ms` is None when nothing was being heard.

    `heard` and `rest` are the two parts of what it was saying; `open` is its message when more text is still to come.
    """

    played_ms: int | None
    message_id: str = ""
    heard: str = ""
    rest: str = ""
    remembered: bool = True
    open: Utterance | None = None
    waiting: tuple[Utterance, ...] = ()
    """What was to be said after it, wholly written, and was dropped with it."""
