"""The turns of one call as Flux tells them, over as many connections as it takes. No I/O, no clock.

Flux counts turns and seconds from zero on each connection. `FluxTurns` counts turns for the call, keeps a turn that was
open when a connection broke, and knows from which second audio must be sent again to lose nothing and repeat nothing.

    IDLE ── StartOfTurn, or any text ──▶ SPEAKING ── EagerEndOfTurn ──▶ PENDING
      ▲                                   │    ▲                         │  │
      └──────────── EndOfTurn ────────────┘    └── TurnResumed, new text ┘  │
      └──────────────────────────── EndOfTurn ──────────────────────────────┘
"""

from __future__ import annotations

from enum import Enum, auto

from providers.base import NativeTurn, TurnMoment
from providers.deepgram.flux_wire import TurnEvent, TurnInfo, Word


class TurnState(Enum):
    """Where the current turn is."""

    IDLE = auto()
    SPEAKING = auto()
    PENDING = auto()
    """An eager end was told and neither taken back nor confirmed."""


class FluxTurns:
    """Turns what Flux reports into what happened. `default_language` goes with reports that name none."""

    def __init__(self, *, eot_timeout_s: float, default_language: str | None) -> None:
        self.state = TurnState.IDLE
        self._eot_timeout_s = eot_timeout_s
        self._default_language = default_language
        self._index = 0
        self._text = ""
        self._words: tuple[Word, ...] = ()
        self._vendor_index: int | None = None
        self._heard_until = 0.0
        self._settled_until = 0.0
        self._kept = ""
        self._orphan_until: float | None = None
        """Second of the new connection at which a turn taken over from the old one ends if nothing more is heard."""

    @property
    def is_open(self) -> bool:
        """Whether a turn has begun and not ended."""
        return self.state is not TurnState.IDLE

    def take(self, info: TurnInfo) -> list[NativeTurn]:
        """What one report means, in order; most reports mean nothing new."""
        moments: list[NativeTurn] = []
        self._heard_until = max(self._heard_until, info.audio_window_end)
        if self._is_late(info):
            return moments
        if self._belongs_to_next(info):
            moments += self.force_end()
        text = self._whole_text(info)
        if self._orphan_until is not None:
            if not info.transcript and info.event != TurnEvent.START:
                return self.force_end() if info.audio_window_end >= self._orphan_until else moments
            self._orphan_until = None
        if self.state is TurnState.IDLE:
            if not text and info.event != TurnEvent.START:
                return moments
            self.state = TurnState.SPEAKING
            self._text = text
            moments.append(self._moment(TurnMoment.START, info))
        self._vendor_index = info.turn_index
        self._words = info.words or self._words
        return moments + self._progress(info, text)

    def force_end(self) -> list[NativeTurn]:
        """End the open turn with the words known so far, because Flux will not."""
        if self.state is TurnState.IDLE:
            return []
        return [self._close(None)]

    def rewind(self, earliest: float) -> float:
        """The connection is gone: from which of its seconds (not before `earliest`) the next one needs the audio.

        An open turn stays open. Its words before that second are kept and put before what the next connection hears.
        """
        replay_from = max(earliest, self._settled_until)
        if self._text and self._orphan_until is None:
            if self._words and all(word.end is not None for word in self._words):
                done = [word.word for word in self._words if word.end is not None and word.end <= replay_from]
                self._kept = " ".join(part for part in (self._kept, *done) if part)
            else:
                replay_from = max(earliest, self._heard_until)
                self._kept = self._text
        return replay_from

    def restart(self, replayed_s: float) -> None:
        """A new connection begins, and hears `replayed_s` seconds of old audio first."""
        self._vendor_index = None
        self._words = ()
        self._heard_until = self._settled_until = 0.0
        self._orphan_until = replayed_s + self._eot_timeout_s if self.is_open else None

    def _is_late(self, info: TurnInfo) -> bool:
        return self._vendor_index is not None and info.turn_index < self._vendor_index

    def _belongs_to_next(self, info: TurnInfo) -> bool:
        return self.is_open and self._vendor_index is not None and info.turn_index > self._vendor_index

    def _whole_text(self, info: TurnInfo) -> str:
        if not info.transcript:
            return self._text
        return f"{self._kept} {info.transcript}" if self._kept else info.transcript

    def _progress(self, info: TurnInfo, text: str) -> list[NativeTurn]:
        """What a report changes in the open turn."""
        moments: list[NativeTurn] = []
        changed = text != self._text
        if self.state is TurnState.PENDING and (changed or info.event == TurnEvent.RESUMED):
            # Whoever drafts an answer at the eager end relies on this: the text only changes after RESUMED.
            self._text = text
            self.state = TurnState.SPEAKING
            moments.append(self._moment(TurnMoment.RESUMED, info))
        self._text = text
        if info.event == TurnEvent.END:
            moments.append(self._close(info))
        elif info.event == TurnEvent.EAGER_END and self.state is TurnState.SPEAKING:
            self.state = TurnState.PENDING
            moments.append(self._moment(TurnMoment.EAGER_END, info))
        elif changed and not moments:
            moments.append(self._moment(TurnMoment.UPDATE, info))
        return moments

    def _close(self, info: TurnInfo | None) -> NativeTurn:
        end = self._moment(TurnMoment.END, info)
        self.state = TurnState.IDLE
        self._index += 1
        self._text = self._kept = ""
        self._words = ()
        self._orphan_until = None
        self._settled_until = self._heard_until
        return end

    def _moment(self, moment: TurnMoment, info: TurnInfo | None) -> NativeTurn:
        if info is None:
            return NativeTurn(moment, self._text, self._index, language=self._default_language)
        return NativeTurn(
            moment,
            self._text,
            self._index,
            probability=info.end_of_turn_confidence,
            confidence=info.confidence,
            language=info.languages[0] if info.languages else self._default_language,
        )
