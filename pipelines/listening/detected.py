"""Turns found by us: Silero hears whether the user speaks, Smart Turn judges whether they finished. Pure.

For every recogniser without turns of its own (behaviour §6.4). Once per silence: after `min_silence_ms` the recogniser
is asked for its final words and the model for a verdict; a confident verdict plus words ends the turn, an unsure one
pauses it until the user goes on or `max_silence_ms` have passed. In `silence` mode there is no model, only the timer.
In `native` mode the recogniser's own endpoint counts, after `native_silence_ms`.
"""

from __future__ import annotations

from pipelines.listening.directives import AskFinal, AskModel, Output
from pipelines.listening.interruption import volume
from pipelines.listening.turn import TurnMachine, TurnState
from pipelines.listening.voice import Voice
from providers.base import Transcript, VadFrame
from wire.config import TurnConfig, TurnMode, VadConfig

FINAL_WAIT_MS = 500
"""After the verdict, how long the final words may take before the interim ones count (behaviour §6.4)."""
EMPTY_WAIT_MS = 1000
"""A silence this long without any new word: it was noise."""
MISSED_MS = 2000
"""Words outside a turn whose voice was longer ago than this were said by a voice that the detector missed."""
BLIP_MS = 90
"""Voice this long, though too short to count as speech by itself, may still have been a word ("yes")."""


class DetectedTurns:
    """Feeds a `TurnMachine` from voice-activity frames, transcripts and verdicts."""

    def __init__(self, machine: TurnMachine, turn: TurnConfig, vad: VadConfig) -> None:
        self.machine = machine
        self._turn = turn
        self._vad = vad
        self._voice = Voice(vad)
        self._silence = 0
        self._score: float | None = None
        self._paused = False
        self._end_wanted_ms: int | None = None
        self._final_seen = False
        self._overlap_final_asked = False
        self._blip = False
        self._skip_final = False
        self._endpoint = False
        """The recogniser believes that the speaker paused."""
        self._asked_ms = 0
        self._ended_voice_ms = -1
        self._directives: list[Output] = []

    def begin(self, now_ms: int) -> None:
        """Frames come from this audio time on."""
        self._voice.begin(now_ms)

    def take(self) -> list[Output]:
        """Events and directives since last asked."""
        out = self.machine.take() + self._directives
        self._directives = []
        return out

    def hear(self, frame: VadFrame) -> None:
        """A frame of voice activity."""
        length = frame.end_ms - self._voice.now_ms
        onset = self._voice.hear(frame)
        machine = self.machine
        if self._voice.voiced_run_ms:
            machine.last_voice_ms = self._voice.last_voice_ms
        if onset or machine.state not in (TurnState.IDLE, TurnState.BOT_PENDING):
            self._blip = False
        # Not only at the onset: whoever spoke over the end of the bot goes on speaking when it has finished.
        speaks = self._voice.speaking and self._voice.voiced_run_ms >= self._vad.min_speech_ms
        if speaks and not machine.user_has_floor:
            machine.speech_began(frame.end_ms, self._voice.started_ms, self._voice.confidence)
        if machine.state is TurnState.BOT_SPEAKING:
            self._overlap(frame, length)
        elif machine.state is TurnState.LISTENING:
            self._listening()
        elif machine.state is TurnState.ANALYZING:
            self._analyzing(frame)
        else:
            self._quiet()

    def pass_by(self, frame: VadFrame) -> None:
        """A frame that nothing may come of: time passes, and no voice is under way."""
        self._voice.hear(VadFrame(frame.end_ms, 0.0, frame.energy_db))
        self._voice.speaking = False

    def skip_rest(self) -> None:
        """What is being said now was told already: the next final words are not new."""
        self._skip_final = True

    def transcript(self, transcript: Transcript) -> None:
        """Words of the recogniser."""
        if self._skip_final:
            self._skip_final = not transcript.is_final
            return
        machine, now = self.machine, self._voice.now_ms
        if transcript.speech_final:
            self._endpoint = True
        if machine.state is TurnState.BOT_SPEAKING:
            if transcript.is_final:
                machine.overlap_words(now, final=transcript.text)
            else:
                machine.overlap_words(now, interim=transcript.text)
            return
        if not machine.user_has_floor:
            self._short_word(transcript, now)
            return
        if not transcript.is_final:
            machine.interim(transcript.text, transcript.confidence, transcript.language)
            return
        machine.final(transcript.text, transcript.confidence, transcript.language)
        if machine.state is TurnState.ANALYZING:
            self._final_seen = True
            self._words_known(now)

    def verdict(self, silence: int, probability: float) -> None:
        """The model's answer to `AskModel(silence)`; one that comes too late is ignored."""
        if silence != self._silence or self.machine.state is not TurnState.ANALYZING:
            return
        now = self._voice.now_ms
        self._score = probability
        if probability < self._turn.smart_turn_threshold:
            if not self._paused:
                self._paused = True
                self.machine.pause(now, probability)
            return
        self._end_wanted_ms = now
        if self._final_seen:
            self._end_if_words(now)

    # --- inside ---

    def _listening(self) -> None:
        if self._voice.offset():
            self.machine.speech_ended()
        if self._voice.silence_ms == 0:
            self._endpoint = False
        if self._voice.silence_ms >= self._vad.min_silence_ms:
            self.machine.speech_ended()
            self.machine.analyze()
            self._silence += 1
            self._score = self._end_wanted_ms = None
            self._paused = self._final_seen = False
            if self._turn.mode is not TurnMode.NATIVE:
                self._directives.append(AskFinal())
            self._ask_model()
            if self.machine.words_settled:
                self._final_seen = True
                self._words_known(self._voice.now_ms)

    def _ask_model(self) -> None:
        if self._turn.mode is TurnMode.SMART_TURN:
            self._asked_ms = self._voice.now_ms
            self._directives.append(AskModel(self._silence))

    def _quiet(self) -> None:
        """Nobody speaks. A sound too short for speech may have been a word: ask the recogniser."""
        if self._voice.voiced_run_ms >= BLIP_MS:
            self._blip = True
        elif self._blip and self._voice.silence_ms >= self._vad.min_silence_ms:
            self._blip = False
            self._directives.append(AskFinal())

    def _short_word(self, transcript: Transcript, now: int) -> None:
        """Final words outside a turn are a turn, unless they come late for one that has just ended."""
        machine = self.machine
        late = machine.state is TurnState.BOT_PENDING and machine.last_voice_ms == self._ended_voice_ms
        if late or not transcript.is_final or not transcript.text:
            return
        if now - machine.last_voice_ms > MISSED_MS:
            machine.last_voice_ms = now
        machine.speech_began(now, machine.last_voice_ms, transcript.confidence)
        machine.final(transcript.text, transcript.confidence, transcript.language)
        self._listening()

    def _analyzing(self, frame: VadFrame) -> None:
        now, silence = frame.end_ms, self._voice.silence_ms
        self._voice.offset()
        if self._resumed(frame):
            self._silence += 1
            self._voice.speaking = True
            started = now - self._voice.voiced_run_ms
            self.machine.resume(started, self._voice.confidence, paused=self._paused)
            return
        if self._end_wanted_ms is not None and now - self._end_wanted_ms >= FINAL_WAIT_MS:
            self._end_if_words(now)
        elif silence >= self._turn.max_silence_ms:
            self._end_wanted_ms = self._end_wanted_ms or now
            self._end_if_words(now)
        elif silence >= EMPTY_WAIT_MS and not self.machine.fresh_text:
            self.machine.abandon(now)
        elif self._endpoint and self._turn.mode is TurnMode.NATIVE and silence >= self._turn.native_silence_ms:
            self._end_if_words(now)
        elif self._paused and 0 < self._turn.recheck_ms <= now - self._asked_ms:
            self._ask_model()

    def _resumed(self, frame: VadFrame) -> bool:
        if self._voice.voiced_run_ms < self._vad.resume_min_ms or frame.probability < self._vad.threshold:
            return False
        return volume(frame.energy_db) >= self._vad.resume_min_volume

    def _words_known(self, now: int) -> None:
        if not self.machine.text:
            return
        if self.machine.resumable:
            self.machine.abandon(now)
            return
        self.machine.eager(now, 0.5 if self._score is None else self._score)
        if self._end_wanted_ms is not None:
            self._end_if_words(now)

    def _end_if_words(self, now: int) -> None:
        if not self.machine.text:
            self.machine.abandon(now)
            return
        probability = 0.5 if self._score is None else self._score
        self.machine.eager(now, probability)
        self.machine.end(now, probability)
        self._ended_voice_ms = self.machine.last_voice_ms

    def _overlap(self, frame: VadFrame, length: int) -> None:
        machine = self.machine
        if self._voice.voiced_run_ms:
            machine.overlapping = True
            self._overlap_final_asked = False
        machine.overlap_frame(frame.end_ms, length, frame.probability, frame.energy_db)
        if not machine.overlapping or machine.state is not TurnState.BOT_SPEAKING:
            return
        self._voice.offset()
        if self._voice.silence_ms >= self._vad.min_silence_ms and not self._overlap_final_asked:
            self._overlap_final_asked = True
            self._directives.append(AskFinal())
        if self._voice.silence_ms >= EMPTY_WAIT_MS:
            machine.overlap_over()
