"""The words of one turn as they come in: what is final, what may still change, and what was said before. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import UNSET

from wire.events import UserMessage, UserSpeaking


@dataclass(frozen=True, slots=True)
class FreshWords:
    """Words between two turns. Falsy when there are none."""

    finals: tuple[str, ...]
    interim: str

    def __bool__(self) -> bool:
        return bool(self.finals or self.interim)


class TurnText:
    """Words of a turn, cumulative: `park` keeps them as the beginning of whatever the user says next."""

    def __init__(self) -> None:
        self._prefix = ""
        self._finals: list[str] = []
        self._interim = ""
        self.confidence = 1.0
        self.language: str | None = None

    @property
    def whole(self) -> str:
        """The turn's words so far, interim ones included."""
        return _join(self._prefix, *self._finals, self._interim)

    @property
    def confirmed(self) -> str:
        """The turn's final words so far."""
        return _join(self._prefix, *self._finals)

    @property
    def fresh(self) -> str:
        """Words since the turn began or was last parked."""
        return _join(*self._finals, self._interim)

    @property
    def settled(self) -> bool:
        """True when there are fresh words and none of them may still change."""
        return bool(self._finals) and not self._interim

    def interim(self, text: str) -> bool:
        """The words since the last final ones, as they look now; False when that is nothing new."""
        changed = text != self._interim
        self._interim = text
        return changed

    def final(self, text: str) -> None:
        """These words will not change any more."""
        self._interim = ""
        if text:
            self._finals.append(text)

    def settle(self) -> None:
        """What was said so far will not change any more."""
        self.final(self._interim)

    def note(self, confidence: float, language: str | None) -> None:
        """What the recogniser says of its newest words."""
        self.confidence = confidence
        self.language = language or self.language

    def as_interim(self, turn_id: int, message_id: str) -> UserSpeaking:
        """The words so far, told while they may still change."""
        return UserSpeaking(
            message_id=message_id,
            turn_id=turn_id,
            text=self.whole,
            confidence=self.confidence,
            confirmed_text=self.confirmed or UNSET,
        )

    def as_message(self, turn_id: int, message_id: str, lag_ms: int) -> UserMessage:
        """The words, told as what was said."""
        return UserMessage(
            message_id=message_id,
            turn_id=turn_id,
            text=self.whole,
            confidence=self.confidence,
            language=self.language or UNSET,
            lag_ms=lag_ms,
        )

    def park(self) -> None:
        """What follows is said on top of this."""
        self._prefix = self.whole
        self.drop_fresh()

    def begin(self) -> None:
        """A new turn without words."""
        self._prefix = ""
        self.drop_fresh()

    def take_fresh(self) -> FreshWords:
        """The fresh words, taken out, to be put into another turn with `give_fresh`."""
        fresh = FreshWords(tuple(self._finals), self._interim)
        self.drop_fresh()
        return fresh

    def give_fresh(self, fresh: FreshWords) -> None:
        """These are the fresh words now."""
        self._finals, self._interim = list(fresh.finals), fresh.interim

    def drop_fresh(self) -> None:
        """Forget what was said since the turn began or was last parked."""
        self._finals = []
        self._interim = ""


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)
