"""The scenes as data: what a caller does when, what the bot says, what must come of it. One TOML file a family.

Every scene begins with the bot's greeting (when it has one), goes on with what the caller does, and the bot answers
each turn with the next of its replies. Times are seconds; `after` says from when:

    "start"        the line is open
    "bot 2"        the caller begins to hear the bot's second message
    "bot 2 end"    the bot's second message would be over if nobody stopped it (`at` may be negative)
    "said"         the caller's previous sound is over
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

HERE = Path(__file__).parent
SPEECH_DB = -22.0
"""A caller of ordinary loudness on a telephone: level of the speech itself, pauses left out (dBFS)."""


class Ears(StrEnum):
    """Which family of recognisers hears a scene."""

    DETECTED = "detected"
    NATIVE = "native"


class _Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Part(StrEnum):
    """What a sound of the caller is."""

    TURN = "turn"
    """Something said to the bot. It goes on with the turn before it if it is `after = "said"`, else begins one."""
    AGAIN = "again"
    """Said right after something else, and a turn of its own."""
    CUT = "cut"
    """Something said to the bot that the caller hangs up in."""
    MURMUR = "murmur"
    """An acknowledgement: no turn, and no reason to stop."""
    NOISE = "noise"
    """No speech of the caller at all."""


class Sound(_Data, frozen=True):
    """One sound of the caller's end. `text` is spoken; `noise` names a sound of `tests/scenes/sounds.py`."""

    at: float
    after: str = "start"
    text: str = ""
    noise: str = ""
    part: Part | None = None
    interrupts: bool = False
    """The bot is speaking and must stop for this."""
    may_interrupt: bool = False
    """If the bot is speaking already, it may stop for this."""
    db: float | None = None
    voice: str = ""
    speed: int = 150
    pitch: int = 50
    heard: str | None = None
    """What a recogniser makes of it; all of `text` when not given, nothing for noises."""
    keep: float | None = None
    """Only so many seconds of it."""

    @property
    def role(self) -> Part:
        if self.part is not None:
            return self.part
        return Part.NOISE if self.noise else Part.TURN

    @property
    def words(self) -> str:
        return self.text if self.heard is None else self.heard

    @property
    def level(self) -> float:
        if self.db is not None:
            return self.db
        return -30.0 if self.noise else SPEECH_DB


class Echo(_Data, frozen=True):
    """The bot's voice comes back through the caller's loudspeaker and microphone."""

    loss_db: float
    delay_ms: int
    room: bool = True
    """With reflections of a room, or a single clean copy."""


class Background(_Data, frozen=True):
    """A sound that goes on all the time."""

    noise: str
    db: float


class Scene(_Data, frozen=True):
    """One call."""

    name: str
    sounds: tuple[Sound, ...]
    language: Literal["en", "es", "fr"] = "en"
    greeting: str = ""
    replies: tuple[str, ...] = ()
    background: Background | None = None
    echo: Echo | None = None
    interruption: bool = True
    hangs_up: bool = False
    """The caller hangs up when everything was said."""
    resumes: bool = False
    """The bot is stopped by something that brings no words and must speak on."""
    stops_within_ms: int = 600
    """From the onset of what interrupts to the decision."""


class Family(_Data, frozen=True):
    """Scenes of one kind."""

    about: str
    scene: tuple[Scene, ...]


@cache
def families() -> dict[str, Family]:
    """All of them by name. Raises msgspec.ValidationError for a scene that says what nobody understands."""
    files = sorted(HERE.glob("*.toml"))
    return {file.stem: msgspec.toml.decode(file.read_bytes(), type=Family) for file in files}
