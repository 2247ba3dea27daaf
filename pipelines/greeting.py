"""When a call is opened with a greeting, and by what (protocol §4.10; browser calls wait for their agent's word)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from pipelines.ids import new_id
from pipelines.speaking.utterance import Origin, Utterance


class Cue(Enum):
    """What the greeting waits for."""

    START = auto()
    CONFIGURED = auto()
    """The agent's word on how this session is configured."""
    TURN_END = auto()
    """The other side has spoken first, as people do who pick up a telephone."""


@dataclass(frozen=True, slots=True)
class Opening:
    """The cue, and after how many seconds without it the greeting is said all the same."""

    cue: Cue = Cue.START
    patience: float = 0.0


class Greeting:
    """Says the greeting once, by `say`. `text` is asked for only then, so that it follows the configuration."""

    def __init__(
        self, opening: Opening | None, say: Callable[[Utterance], bool], text: Callable[[], str | None]
    ) -> None:
        self._opening = opening
        self._speak = say
        self._text = text
        self._due: float | None = None

    @property
    def waits(self) -> bool:
        """A greeting will come."""
        return self._due is not None and bool(self._text())

    def start(self, now: float) -> None:
        """The call has begun."""
        if self._opening is None:
            return
        self._due = now + self._opening.patience
        if self._opening.cue is Cue.START:
            self._say()

    def configured(self) -> None:
        """The agent has configured the session."""
        if self._opening is not None and self._opening.cue is Cue.CONFIGURED:
            self._say()

    def user_active(self, now: float) -> None:
        """The other side speaks: patience begins again with their silence."""
        if self._due is not None and self._opening is not None and self._opening.cue is Cue.TURN_END:
            self._due = now + self._opening.patience

    def turn_ended(self) -> bool:
        """Their turn is over. True if the greeting is the answer to it."""
        if self._opening is None or self._opening.cue is not Cue.TURN_END or not self.waits:
            return False
        self._say()
        return True

    def beat(self, now: float) -> None:
        """Called every tick."""
        if self._due is not None and now >= self._due:
            self._say()

    def _say(self) -> None:
        if self._due is None:
            return
        self._due = None
        text = self._text()
        if not text:
            return
        greeting = Utterance(new_id("msg"), "", Origin.GREETING, remembered=True)
        greeting.announced_text = text
        greeting.write(text)
        greeting.close()
        self._speak(greeting)
