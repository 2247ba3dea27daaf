"""What turn taking wants done, besides the events it states."""

from __future__ import annotations

from dataclasses import dataclass

from wire.events import CallEvent


@dataclass(frozen=True, slots=True)
class StopBot:
    """The user takes the floor: silence the bot, then report with `bot_stopped`."""


@dataclass(frozen=True, slots=True)
class ResumeBot:
    """What stopped the bot was no words after all: it may go on from the word after the last one heard."""


@dataclass(frozen=True, slots=True)
class AskFinal:
    """The user went quiet: the recogniser should say what it has."""


@dataclass(frozen=True, slots=True)
class AskModel:
    """Judge the sound of the turn; answer with `DetectedTurns.verdict(silence, …)`."""

    silence: int


Output = CallEvent | StopBot | ResumeBot | AskFinal | AskModel
