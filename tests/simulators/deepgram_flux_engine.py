"""What simulated Flux hears and says: a machine over 20 ms frames of audio, without sockets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from tests.simulators.deepgram_sound import FRAME_MS, Ear, Script

UPDATE_MS = 260
"""Flux reports about each 0.25 s; this is the next whole frame."""


class Ending(Enum):
    """How a scripted turn goes."""

    EAGER = auto()
    """EagerEndOfTurn, then EndOfTurn."""
    RESUMED = auto()
    """EagerEndOfTurn without the last word, TurnResumed, EndOfTurn with all."""
    PLAIN = auto()
    """EndOfTurn at once."""
    TIMEOUT = auto()
    """EndOfTurn only after `eot_timeout_ms` of quiet."""
    STUCK = auto()
    """StartOfTurn, then nothing at all any more on this connection."""


@dataclass(frozen=True, slots=True)
class Say:
    """One turn. With `at_ms` it sounds from then on for `for_ms` of the connection's audio."""

    text: str
    ending: Ending = Ending.EAGER
    at_ms: int | None = None
    for_ms: int = 1000
    language: str = "en"
    confidence: float = 0.98
    without_start: bool = False
    """The turn shows in an Update first, as sometimes happens."""
    word_times: bool = True


@dataclass(frozen=True, slots=True)
class Pace:
    """When audio counts as speech (RMS of 16-bit samples), and how much quiet means what (ms)."""

    loud: float = 400.0
    start_ms: int = 60
    word_ms: int = 200
    eager_quiet_ms: int = 300
    resume_quiet_ms: int = 440
    end_quiet_ms: int = 700


class _Phase(Enum):
    IDLE = auto()
    SPEAKING = auto()
    PENDING = auto()
    STUCK = auto()


class FluxEngine:
    """One connection's turns; each method returns the messages it causes."""

    def __init__(
        self, script: Script[Say], pace: Pace, *, eager: bool, eot_timeout_ms: int, multilingual: bool
    ) -> None:
        self._script = script
        self._pace = pace
        self._eager = eager
        self._eot_timeout_ms = eot_timeout_ms
        self._multilingual = multilingual
        self._phase = _Phase.IDLE
        self._ear = Ear(pace.loud)
        self._since_update = 0
        self._turn_index = 0
        self._turn_start = 0
        self._words = 0
        self._resumed = False

    def hear(self, rms: float) -> list[dict[str, object]]:
        """One frame of audio."""
        self._since_update += FRAME_MS
        say = self._script.current()
        self._ear.hear(say, rms, between=self._phase is _Phase.IDLE)
        if say is None or self._phase is _Phase.STUCK:
            return self._maybe_update(say)
        return self._step(say) or self._maybe_update(say)

    def force_end(self) -> list[dict[str, object]]:
        say = self._script.current()
        if say is None or self._phase in (_Phase.IDLE, _Phase.STUCK):
            return [{"type": "Warning", "code": "FORCE_END_TURN_NO_ACTIVE_TURN", "description": "no turn is open"}]
        return self._end(say, "manual")

    def flush(self) -> list[dict[str, object]]:
        """The Update that follows CloseStream; no turn is ended by it."""
        say = self._script.current()
        if say is None or self._phase in (_Phase.IDLE, _Phase.STUCK):
            return []
        self._words = len(say.text.split())
        return [self._info(say, "Update")]

    def configure(self, wanted: dict[str, object]) -> dict[str, object]:
        return {"type": "ConfigureSuccess", **{name: value for name, value in wanted.items() if name != "type"}}

    def _step(self, say: Say) -> list[dict[str, object]]:
        match self._phase:
            case _Phase.IDLE if self._ear.loud_ms >= self._pace.start_ms:
                return self._begin(say)
            case _Phase.SPEAKING:
                return self._speaking(say)
            case _Phase.PENDING:
                return self._pending(say)
            case _:
                return []

    def _begin(self, say: Say) -> list[dict[str, object]]:
        self._phase = _Phase.SPEAKING
        self._turn_start = self._ear.now_ms - self._ear.loud_ms
        self._words = 1
        self._resumed = False
        if say.ending is Ending.STUCK:
            self._phase = _Phase.STUCK
            self._script.use_up()
        return [self._info(say, "Update" if say.without_start else "StartOfTurn")]

    def _speaking(self, say: Say) -> list[dict[str, object]]:
        total = len(say.text.split())
        if self._ear.quiet_ms == 0:
            self._words = min(total, max(self._words, 1 + self._ear.loud_ms // self._pace.word_ms))
        elif say.ending is Ending.TIMEOUT:
            if self._ear.quiet_ms >= self._eot_timeout_ms:
                return self._end(say, "timeout")
        elif self._wants_eager(say) and self._ear.quiet_ms >= self._pace.eager_quiet_ms:
            self._phase = _Phase.PENDING
            self._words = total - 1 if say.ending is Ending.RESUMED else total
            return [self._info(say, "EagerEndOfTurn")]
        elif self._ear.quiet_ms >= self._pace.end_quiet_ms:
            return self._end(say, "model")
        return []

    def _wants_eager(self, say: Say) -> bool:
        return self._eager and not self._resumed and say.ending in (Ending.EAGER, Ending.RESUMED)

    def _pending(self, say: Say) -> list[dict[str, object]]:
        scripted = say.ending is Ending.RESUMED and self._ear.quiet_ms >= self._pace.resume_quiet_ms
        if self._ear.quiet_ms == 0 or scripted:
            self._phase = _Phase.SPEAKING
            self._resumed = scripted
            self._words = len(say.text.split())
            return [self._info(say, "TurnResumed")]
        return self._end(say, "model") if self._ear.quiet_ms >= self._pace.end_quiet_ms else []

    def _end(self, say: Say, trigger: str) -> list[dict[str, object]]:
        if trigger != "manual":
            self._words = len(say.text.split())
        ended = self._info(say, "EndOfTurn") | {"trigger": trigger}
        self._phase = _Phase.IDLE
        self._turn_index += 1
        self._turn_start = self._ear.now_ms
        self._words = 0
        self._ear.rest()
        self._script.use_up()
        return [ended]

    def _maybe_update(self, say: Say | None) -> list[dict[str, object]]:
        if self._since_update < UPDATE_MS or self._phase is _Phase.STUCK:
            return []
        return [self._info(say, "Update")]

    def _info(self, say: Say | None, event: str) -> dict[str, object]:
        self._since_update = 0
        said = say.text.split()[: self._words] if say and self._phase is not _Phase.IDLE else []
        info: dict[str, object] = {
            "type": "TurnInfo",
            "event": event,
            "turn_index": self._turn_index,
            "audio_window_start": self._turn_start / 1000,
            "audio_window_end": self._ear.now_ms / 1000,
            "transcript": " ".join(said),
            "words": [self._word(say, place, word) for place, word in enumerate(said) if say],
            "end_of_turn_confidence": {"EndOfTurn": 0.83, "EagerEndOfTurn": 0.56}.get(event, 0.05),
        }
        if self._multilingual and say and said:
            info |= {"languages": [say.language], "languages_hinted": []}
        return info

    def _word(self, say: Say, place: int, word: str) -> dict[str, object]:
        start = (self._turn_start + place * self._pace.word_ms) / 1000
        times = {"start": start, "end": start + self._pace.word_ms / 1000} if say.word_times else {}
        return {"word": word, "confidence": say.confidence, **times}
