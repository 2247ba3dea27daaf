"""Who may have the floor, and what the turn machine needs to know of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from pipelines.listening.interruption import InterruptionGate


class TurnState(Enum):
    """Who has the floor."""

    IDLE = auto()
    LISTENING = auto()
    ANALYZING = auto()
    BOT_PENDING = auto()
    BOT_SPEAKING = auto()


@dataclass(frozen=True, slots=True)
class TurnRules:
    """What the machine needs to know of a call.

    `pending_window_ms`: speech later than this after `turn.end` without an answer is a new turn (agents that think for
    themselves may never answer); None when the server answers every turn.
    """

    language: str
    gate: InterruptionGate
    new_id: Callable[[], str]
    pending_window_ms: int | None = None
