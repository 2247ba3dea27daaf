"""Is a reply still an answer to the question? (protocol §4.1). Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a reply is refused; `expected` is the id it should have answered, empty when there is none yet."""

    expected: str
    reason: str


class Replies:
    """Knows which of the user's messages is the current one, and which bot messages exist already."""

    def __init__(self) -> None:
        self._current = ""
        self._seen: set[str] = set()

    def announced(self, message_id: str) -> None:
        """The user's newest message, by `eager.turn`, `user.message` or `turn.end`."""
        self._current = message_id

    def continued(self) -> None:
        """The user went on: what was announced is obsolete, and the next message has no id yet."""
        self._current = ""

    def knows(self, message_id: str) -> bool:
        """Was this bot message started, spoken or refused before?"""
        return message_id in self._seen

    def admit(self, message_id: str, in_reply_to: str) -> Rejection | None:
        """Judge a new bot message; None means welcome. Either way its id is used up."""
        if message_id in self._seen:
            return Rejection(self._current, "duplicate_message_id")
        self._seen.add(message_id)
        if in_reply_to and in_reply_to != self._current:
            return Rejection(self._current, "message_obsolete")
        return None
