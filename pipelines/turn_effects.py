"""What a turn event means for replies, dialogue, greeting and limits. Nothing is decided here."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.barge_in import BargeIn
from pipelines.clock import Clock
from pipelines.greeting import Greeting
from pipelines.listening.ears import Ears
from pipelines.listening.turn import TurnMachine
from pipelines.metering import Metering
from pipelines.speaking.mouth import Mouth
from pipelines.thinking.dialogue import Dialogue
from pipelines.thinking.replies import Replies
from pipelines.watch import SessionWatch
from wire.events import CallEvent, EagerTurn, SpeechStarted, TurnContinued, TurnEnd, UserMessage, UserSpeaking


@dataclass(frozen=True, slots=True)
class TurnEffects:
    """Passes turn events on to the rooms of one call."""

    clock: Clock
    machine: TurnMachine
    ears: Ears
    mouth: Mouth
    replies: Replies
    dialogue: Dialogue
    greeting: Greeting
    barge_in: BargeIn
    watch: SessionWatch
    metering: Metering

    def follow(self, event: CallEvent) -> None:
        """An event of the turn machine has been published."""
        now = self.clock.now()
        match event:
            case UserMessage():
                self._user_active(now)
                self.replies.announced(event.message_id)
                self.mouth.drop_replies()
                self.dialogue.user_said(event.turn_id, event.message_id, event.text)
            case EagerTurn():
                self.replies.announced(event.message_id)
                if not self.greeting.waits:
                    self.dialogue.prepare(event.message_id)
            case TurnEnd():
                self._turn_ended(event)
                self.mouth.beat(now)
            case TurnContinued():
                self.replies.continued()
                self.barge_in.turn_continued()
            case SpeechStarted():
                self._user_active(now)
            case UserSpeaking():
                self.barge_in.words()
                self.dialogue.user_says(event.text)
                self._user_active(now)
            case _:
                pass

    def _turn_ended(self, event: TurnEnd) -> None:
        self.barge_in.turn_ended()
        self.metering.turn_ended(event.turn_id, self.ears.now_ms - self.machine.turn_started_ms)
        self.replies.announced(event.message_id)
        if not self.greeting.turn_ended():
            self.dialogue.answer(event.message_id)

    def _user_active(self, now: float) -> None:
        self.greeting.user_active(now)
        self.watch.user_activity(now)
