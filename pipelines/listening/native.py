"""Turns found by the recogniser itself (Deepgram Flux; behaviour §6.4). Pure.

The recogniser decides when a turn starts, may be over, goes on and is over; its text is that of its whole turn. What it
cannot know is the bot: speech over the bot is judged by the interruption gate, with the line's loudness as the voice.
"""

from __future__ import annotations

from dataclasses import replace

from pipelines.listening.backchannel import real_words
from pipelines.listening.directives import Output
from pipelines.listening.interruption import DIP_MS
from pipelines.listening.turn import TurnMachine, TurnState
from providers.base import NativeTurn, TurnMoment

VOICE_DB = -45.0
"""Louder than this is taken for the user's voice when telling how long ago they stopped (dBFS)."""

FAINT_MS = 1000
"""Words whose voice was this long ago were said too softly for `VOICE_DB`; recognisers lag less behind."""
EMPTY_WAIT_MS = 1500
"""A silence this long in a turn without any new word: it was noise."""


class NativeTurns:
    """Feeds a `TurnMachine` from a recogniser with turns of its own."""

    def __init__(self, machine: TurnMachine, language: str, min_confidence: float = 0.0) -> None:
        """Turns whose words are less sure than `min_confidence` were not said."""
        self.machine = machine
        self._language = language
        self._min_confidence = min_confidence
        self._ended_index = -1
        self._open_index = -1
        self._open_words = 0
        self._told_index = -1
        self._told_words = 0
        self._talking = False
        self._kept_end: NativeTurn | None = None
        self._now = 0
        self._voice_started_ms = 0
        self._loud_ms = 0
        self._loud_db = 0.0
        self._faint = False
        self._text = ""

    def take(self) -> list[Output]:
        """Events and directives since last asked."""
        return self.machine.take()

    def restart(self) -> None:
        """A new recogniser counts its turns from the beginning."""
        self._ended_index = self._open_index = self._told_index = -1
        self._talking = False

    def overhear(self, report: NativeTurn) -> None:
        """A report that nothing may come of; keeps track of which turn the recogniser is in."""
        self._open_index, self._open_words = report.turn_index, len(report.text.split())
        if report.moment is TurnMoment.END:
            self._ended_index = report.turn_index
            self._talking = False

    def skip_rest(self) -> None:
        """The words of the recogniser's turn so far were told already: only those after them are new."""
        self._told_index, self._told_words = self._open_index, self._open_words
        self._talking = False

    def level(self, now: int, length_ms: int, energy_db: float) -> None:
        """How loud the line is: drives interruption and latencies."""
        self._now = now
        if energy_db >= VOICE_DB:
            self._faint = False
            if now - self.machine.last_voice_ms > length_ms + 500:
                self._voice_started_ms = now - length_ms
            if now - self.machine.last_voice_ms > length_ms + DIP_MS:
                self._loud_ms, self._loud_db = 0, energy_db
            self._loud_ms += length_ms
            self._loud_db += (energy_db - self._loud_db) * length_ms / self._loud_ms
            self.machine.last_voice_ms = now
        if self.machine.state is TurnState.BOT_SPEAKING:
            probability = 1.0 if self._talking else 0.0
            self.machine.overlap_frame(now, length_ms, probability, energy_db)
        elif self._kept_end is not None and self.machine.state is TurnState.LISTENING:
            # What was said over the bot has become a turn, and it ended back then.
            self.machine.end(now, self._kept_end.probability)
            self._kept_end = None
        elif self._is_noise(now):
            self.machine.abandon(now)

    def _is_noise(self, now: int) -> bool:
        """A turn that began and brought no word: recognisers may leave it open for long (a known fault of Flux)."""
        machine = self.machine
        silent = machine.state is TurnState.LISTENING and now - machine.last_voice_ms >= EMPTY_WAIT_MS
        return silent and not machine.fresh_text

    def turn(self, report: NativeTurn) -> None:
        """A report of the recogniser."""
        if report.turn_index <= self._ended_index:
            return
        if report.turn_index == self._told_index:
            report = self._untold(report)
            if not report.text and not self.machine.user_has_floor and not self.machine.overlapping:
                return
        if report.moment in (TurnMoment.EAGER_END, TurnMoment.END) and report.confidence < self._min_confidence:
            if report.moment is TurnMoment.EAGER_END:
                return
            report = replace(report, text="")
        if report.moment is not TurnMoment.END:
            self._kept_end = None
        talking = self._talking
        if report.moment is TurnMoment.END:
            self._ended_index = report.turn_index
            self._talking = False
        elif report.moment in (TurnMoment.START, TurnMoment.RESUMED) or report.text:
            self._talking = report.moment is not TurnMoment.EAGER_END
        if self.machine.state is TurnState.BOT_SPEAKING:
            self._over_the_bot(report, talking=talking)
        else:
            self._in_turn(report)

    def _untold(self, report: NativeTurn) -> NativeTurn:
        """Without the words that were told. By their number: recognisers respell words while the turn goes on."""
        return replace(report, text=" ".join(report.text.split()[self._told_words :]))

    def _in_turn(self, report: NativeTurn) -> None:
        machine, now = self.machine, self._now
        moment = report.moment
        self._notice_faint(report)
        if moment in (TurnMoment.START, TurnMoment.RESUMED) or (moment is not TurnMoment.END and report.text):
            self._voice(report)
        if moment is TurnMoment.END and not machine.user_has_floor:
            if not report.text:
                return
            machine.speech_began(now, self._voice_started_ms, report.confidence)
        machine.interim(report.text, report.confidence, report.language)
        if moment is TurnMoment.EAGER_END:
            machine.speech_ended()
            machine.analyze()
            machine.eager(now, report.probability)
        elif moment is TurnMoment.END:
            if machine.text:
                machine.end(now, report.probability)
            else:
                machine.abandon(now)

    def _notice_faint(self, report: NativeTurn) -> None:
        """Of a voice too soft to be measured the recogniser tells when it was there: while the words change, or only
        by the end of the turn. A louder voice of long before must not be taken for it."""
        machine, ended = self.machine, report.moment is TurnMoment.END
        silent_ms = self._now - machine.last_voice_ms
        changed = report.text != self._text and report.moment is not TurnMoment.EAGER_END
        known = ended and machine.user_has_floor
        self._text = "" if ended else report.text
        if changed and not known and silent_ms > (0 if self._faint and not ended else FAINT_MS):
            if silent_ms > FAINT_MS:
                self._voice_started_ms = self._now
            self._faint = True
            self._loud_ms, self._loud_db = 0, 0.0
            machine.last_voice_ms = self._now

    def _voice(self, report: NativeTurn) -> None:
        machine = self.machine
        if machine.state is TurnState.ANALYZING:
            if report.moment is TurnMoment.RESUMED:
                # The text of the vendor's turn is repeated with every report: nothing of it may be parked twice.
                machine.interim("", report.confidence, report.language)
                machine.resume(self._now, report.confidence, paused=False)
        elif machine.state is not TurnState.LISTENING:
            machine.speech_began(self._now, self._voice_started_ms, report.confidence)

    def _over_the_bot(self, report: NativeTurn, *, talking: bool) -> None:
        machine = self.machine
        machine.overlapping = True
        if not talking and self._now - machine.last_voice_ms <= DIP_MS:
            # The recogniser needed a moment to be sure of the voice that led to its first word.
            machine.overlap_frame(self._now, self._loud_ms, 1.0, self._loud_db)
        self._notice_faint(report)
        if report.moment is not TurnMoment.END:
            machine.overlap_words(self._now, interim=report.text)
            return
        machine.overlap_words(self._now, final=report.text)
        machine.overlap_over()
        if real_words(report.text, self._language) or machine.within_turn:
            self._kept_end = report
