"""Whose turn is it? The one state machine of turn taking, for recognisers with and without turns of their own. Pure.

    IDLE ─speech→ LISTENING ─silence→ ANALYZING ─end→ BOT_PENDING ─first audio→ BOT_SPEAKING ─finished→ IDLE
                     ↑  └────── pause, resumed ──┘          │ the user goes on        │
                     └──────────── turn.continued ──────────┴──────── barge-in ───────┘

`DetectedTurns` (voice activity + a model) and `NativeTurns` (Deepgram Flux) feed it; the call tells it what the bot
does. Times are audio milliseconds since the call's audio began. What follows from an input is appended to an output
list that the caller takes with `take`: wire events, in order, and the directives below.

Words are cumulative within a turn: whatever the user adds after `turn.continued` comes as a new message with a new id
and the whole text so far (protocol §3.13).
"""

from __future__ import annotations

from pipelines.listening.backchannel import real_words
from pipelines.listening.directives import Output, ResumeBot, StopBot
from pipelines.listening.rules import TurnRules, TurnState
from pipelines.listening.turn_text import TurnText
from wire.events import (
    EagerTurn,
    SpeechEnded,
    SpeechStarted,
    TurnContinued,
    TurnEnd,
    TurnPause,
    TurnResumed,
    UserSpeaking,
)

NEW_TURN_PLAYED_MS = 2000
"""A bot message heard for less was talked into, not answered: the user's turn goes on (protocol §3.13)."""


class TurnMachine:
    """Turn numbers, message ids, cumulative text, and who has the floor."""

    def __init__(self, rules: TurnRules) -> None:
        self.rules = rules
        """May be replaced in mid-call."""
        self._out: list[Output] = []
        self.state = TurnState.IDLE
        self.turn_id = 0
        self.last_voice_ms = 0
        """End of the user's last voice; front-ends keep it, latencies are counted from it."""
        self._speech_started_ms = 0
        self.turn_started_ms = 0
        """When the user began to speak in this turn."""
        self._speech_open = False
        self._turn_open = False
        self._turn_spoken = False
        self._words = TurnText()
        self._message_id = ""
        self._announced: str | None = None
        self._eager = False
        self._ended_ms = 0
        self._bot_since_ms = 0
        self._greeting = False
        self._stopping = False
        self.resumable = False
        """A voice stopped the bot, and no words have followed but acknowledgements."""
        self.overlapping = False
        """The user is speaking while the bot is audible, and has not (yet) stopped it."""
        self.within_turn = False
        """The bot became audible within the user's turn, which goes on whatever becomes of the bot."""

    # --- reading ---

    def take(self) -> list[Output]:
        """What followed from the inputs since last asked."""
        out, self._out = self._out, []
        return out

    @property
    def text(self) -> str:
        """The turn's words so far, interim ones included."""
        return self._words.whole

    @property
    def fresh_text(self) -> str:
        """Words that were said since the last message was announced or the turn began."""
        return self._words.fresh

    @property
    def words_settled(self) -> bool:
        """True when there are new words and none of them may still change."""
        return self._words.settled

    @property
    def unfinished(self) -> tuple[int, str]:
        """Words of a turn that has not ended, and its number. What is said over the bot would be the next turn."""
        if self.user_has_floor or self.within_turn:
            return self.turn_id, self.text
        return self.turn_id + 1, self.fresh_text if self.state is TurnState.BOT_SPEAKING else ""

    @property
    def user_has_floor(self) -> bool:
        """True while a reply must wait: the user speaks, or it is not yet decided that they finished."""
        return self.state in (TurnState.LISTENING, TurnState.ANALYZING)

    @property
    def user_speaking(self) -> bool:
        """True while the user is making sound that counts."""
        return self._speech_open

    # --- the user's voice and words, told by a front-end ---

    def speech_began(self, now: int, started_ms: int, confidence: float) -> None:
        """The user certainly speaks, since `started_ms`."""
        if self.state is TurnState.BOT_SPEAKING:
            self.overlapping = True
            return
        if self.state is TurnState.IDLE:
            self._new_turn()
        elif self.state is TurnState.BOT_PENDING:
            window = self.rules.pending_window_ms
            if window is None or now - self._ended_ms <= window:
                self._continue()
            else:
                self._new_turn()
        self.state = TurnState.LISTENING
        self._start_speech(started_ms, confidence)

    def speech_ended(self) -> None:
        """The user is silent. No-op when that was said already."""
        if not self._speech_open:
            return
        self._speech_open = False
        duration = max(0, self.last_voice_ms - self._speech_started_ms)
        self._out.append(SpeechEnded(turn_id=self.turn_id, duration_ms=duration, timestamp=0.0))

    def interim(self, text: str, confidence: float, language: str | None) -> None:
        """The words since the last final ones, as they look now."""
        if self._words.interim(text):
            self._note(confidence, language)
            self._speaking_event()

    def final(self, text: str, confidence: float, language: str | None) -> None:
        """These words will not change any more."""
        self._words.final(text)
        if not text:
            return
        self._note(confidence, language)
        if self._announced != self.text:
            self._speaking_event()

    def analyze(self) -> None:
        """Silence: is the turn over?"""
        if self.state is TurnState.LISTENING:
            self.state = TurnState.ANALYZING

    def eager(self, now: int, probability: float) -> None:
        """The turn is probably over and its words are known."""
        if not self.text or self.resumable or (self._eager and self._announced == self.text):
            return
        self._announce(now)
        self._eager = True
        self._out.append(
            EagerTurn(
                turn_id=self.turn_id,
                message_id=self._message_id,
                text=self.text,
                probability=probability,
                latency_ms=self._latency(now),
            )
        )

    def pause(self, now: int, probability: float) -> None:
        """Silence, but the user has not finished."""
        self._out.append(TurnPause(turn_id=self.turn_id, probability=probability, latency_ms=self._latency(now)))

    def resume(self, started_ms: int, confidence: float, *, paused: bool) -> None:
        """The user goes on within the turn. Replies to what was announced are obsolete."""
        self.state = TurnState.LISTENING
        if paused:
            self._out.append(TurnResumed(turn_id=self.turn_id, timestamp=0.0))
        if self._announced is not None:
            self._continue()
        self._start_speech(started_ms, confidence)

    def end(self, now: int, probability: float) -> None:
        """The turn is over. Needs words; if they only say that the bot may go on, it does."""
        if self.resumable:
            self.abandon(now)
            return
        self.speech_ended()
        self._announce(now)
        self._out.append(
            TurnEnd(
                turn_id=self.turn_id,
                message_id=self._message_id,
                text=self.text,
                probability=probability,
                latency_ms=self._latency(now),
            )
        )
        self.state = TurnState.BOT_PENDING
        self._ended_ms = now

    def abandon(self, now: int) -> None:
        """Nothing was said: noise. A turn without words leaves no trace; one that had words is announced again,
        because whoever was answering it has been told to stop."""
        self.speech_ended()
        self._words.interim("")
        resume, self.resumable = self.resumable, False
        if resume:
            self._words.drop_fresh()
            # An acknowledgement told in the same breath must not look like something said.
            self._out = [output for output in self._out if not isinstance(output, UserSpeaking)]
            self._out.append(ResumeBot())
        if self.text:
            if not resume:
                self.end(now, 0.5)
            self.state, self._ended_ms = TurnState.BOT_PENDING, now
            return
        self.turn_id -= 1
        self.state, self._turn_open = TurnState.IDLE, False

    def written(self, now: int, text: str) -> None:
        """The user wrote instead of speaking, and that ends the turn they are in or is one of its own. The bot has
        been silenced."""
        self.resumable = False
        if not self.user_has_floor:
            if self.state is not TurnState.IDLE:
                self._out.append(TurnContinued(turn_id=max(1, self.turn_id), timestamp=0.0))
            self._leave_bot()
            self._new_turn()
            self.turn_started_ms = now
            self.state = TurnState.LISTENING
        self._words.settle()
        self._words.final(text)
        self._words.note(1.0, None)
        self.last_voice_ms = now
        self.end(now, 1.0)

    # --- the bot, told by the call ---

    def bot_audible(self, now: int, *, greeting: bool) -> None:
        """The caller begins to hear the bot."""
        if self.state is not TurnState.BOT_SPEAKING:
            self.overlapping = self.within_turn = self.user_has_floor
            if self.state is not TurnState.IDLE and not self.overlapping:
                # What was said is being answered; words from here on belong to whatever comes next.
                self._words.park()
            self.state = TurnState.BOT_SPEAKING
            self.rules.gate.reset(self.fresh_text)
        self._bot_since_ms = now
        self._greeting = greeting
        self._stopping = False

    def bot_silent(self, now: int) -> None:
        """The bot has said all it had to say (or its agent stopped it)."""
        if self.state is not TurnState.BOT_SPEAKING:
            return
        if self.within_turn:
            self._leave_bot()
            self.state = TurnState.LISTENING
            return
        leftover = self._overlap_words()
        was_overlapping = self.overlapping
        self._leave_bot()
        self.state = TurnState.IDLE
        self._turn_open = False
        if leftover or (was_overlapping and self._speech_open):
            fresh = self._words.take_fresh()
            self._new_turn()
            self._words.give_fresh(fresh)
            self.state = TurnState.LISTENING
            self._start_speech(now, self._words.confidence)
            if leftover:
                self._speaking_event()
        else:
            self._words.drop_fresh()

    def bot_stopped(self, now: int, played_ms: int, *, resumable: bool = False) -> None:
        """The bot fell silent because of `StopBot`; `played_ms` of its message were heard. If no words follow and it
        is `resumable`, it is asked to go on."""
        self.resumable = resumable and not self._overlap_words()
        fresh = self._words.take_fresh()
        same_turn = self.within_turn or (played_ms < NEW_TURN_PLAYED_MS and self._turn_open)
        self._leave_bot()
        if same_turn:
            self._continue()
        else:
            self._out.append(TurnContinued(turn_id=max(1, self.turn_id), timestamp=0.0))
            self._new_turn()
        self._words.give_fresh(fresh)
        self.state = TurnState.LISTENING
        self._start_speech(now, self._words.confidence)
        if fresh:
            self._speaking_event()

    # --- overlap, told by a front-end while the bot is audible ---

    def overlap_frame(self, now: int, length_ms: int, probability: float, energy_db: float) -> None:
        """A frame of the caller's line while the bot is audible."""
        self.rules.gate.voice(length_ms, probability, energy_db)
        self._judge(now)

    def overlap_words(self, now: int, *, interim: str | None = None, final: str | None = None) -> None:
        """Words the user said over the bot; they belong to nothing until the bot stops or finishes."""
        if final is not None:
            self._words.final(final)
        if interim is not None:
            self._words.interim(interim)
        self.rules.gate.text(self.fresh_text, now - self._bot_since_ms, greeting=self._greeting)
        self._judge(now)

    def overlap_over(self) -> None:
        """The user went quiet again and the bot goes on. Acknowledgements are forgotten, other words kept for later."""
        self.overlapping = False
        self.speech_ended()
        if not self.within_turn and not self._overlap_words():
            self._words.drop_fresh()
        self.rules.gate.reset(self.fresh_text)

    def reset(self) -> None:
        """Forget the turn in progress without a word (mute, hold)."""
        self.speech_ended()
        self.within_turn = self.resumable = False
        if self.user_has_floor:
            if self._announced is not None:
                # Answers may be on their way: whoever makes them has to know that they are void.
                self._out.append(TurnContinued(turn_id=self.turn_id, timestamp=0.0))
            self.state, self._turn_open = TurnState.IDLE, False
        self._words.drop_fresh()

    # --- inside ---

    def _judge(self, now: int) -> None:
        if self._stopping or not self.overlapping:
            return
        if self.rules.gate.open(now - self._bot_since_ms, greeting=self._greeting):
            self._stopping = True
            self._out.append(StopBot())

    def _overlap_words(self) -> bool:
        return real_words(self.fresh_text, self.rules.language) > 0

    def _leave_bot(self) -> None:
        self.rules.gate.reset()
        self.overlapping = self.within_turn = False
        self._stopping = False

    def _new_turn(self) -> None:
        self.turn_id += 1
        self._turn_open = True
        self._turn_spoken = False
        self._words.begin()
        self._next_message()

    def _next_message(self) -> None:
        self._message_id = self.rules.new_id()
        self._announced = None
        self._eager = False

    def _continue(self) -> None:
        """Replies so far are obsolete; the words stay and the next message repeats them under a new id."""
        self._out.append(TurnContinued(turn_id=self.turn_id, timestamp=0.0))
        self._words.park()
        self._next_message()

    def _start_speech(self, started_ms: int, confidence: float) -> None:
        if self._speech_open:
            return
        self._speech_open = True
        self._speech_started_ms = started_ms
        if not self._turn_spoken:
            self._turn_spoken = True
            self.turn_started_ms = started_ms
        self._out.append(SpeechStarted(turn_id=self.turn_id, confidence=confidence, timestamp=0.0))

    def _note(self, confidence: float, language: str | None) -> None:
        self.resumable = self.resumable and not self._overlap_words()
        self._words.note(confidence, language)

    def _speaking_event(self) -> None:
        if self.state not in (TurnState.LISTENING, TurnState.ANALYZING) or not self.text:
            return
        self._out.append(self._words.as_interim(self.turn_id, self._message_id))

    def _announce(self, now: int) -> None:
        """`user.message`, once per id; other words need another id."""
        if self._announced == self.text:
            return
        if self._announced is not None:
            self._next_message()
        self._announced = self.text
        self._out.append(self._words.as_message(self.turn_id, self._message_id, self._latency(now)))

    def _latency(self, now: int) -> int:
        return max(0, now - self.last_voice_ms)
