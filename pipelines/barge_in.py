"""The user takes the floor, and gives it back if it was a cough (behaviour §6.6).

When a voice stopped the bot but no words followed, the rest of what it was saying is spoken on, from the word after the
last one heard, once a turn. That goes for the agent's own replies too, as long as all of their text is known: silence
would serve nobody, and the agent sees the rest as a message like any other. Until it is known whether words follow, the
server's model is left to write on: stopped for a cough, it would leave the caller with half an answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from pipelines.ids import new_id
from pipelines.listening.ears import Ears
from pipelines.listening.turn import NEW_TURN_PLAYED_MS, TurnMachine
from pipelines.speaking.listener import Silenced
from pipelines.speaking.mouth import Mouth
from pipelines.speaking.utterance import Origin, Utterance
from pipelines.thinking.dialogue import Dialogue

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Cut:
    """What was cut off and may go on."""

    message_id: str
    heard: str
    rest: Utterance
    waiting: tuple[Utterance, ...]


class BargeIn:
    """Stops the bot for the user, and lets it go on."""

    def __init__(self, machine: TurnMachine, ears: Ears, mouth: Mouth, dialogue: Dialogue) -> None:
        self._machine = machine
        self._ears = ears
        self._mouth = mouth
        self._dialogue = dialogue
        self._cut: _Cut | None = None
        """What was cut off, until it is known whether words followed."""
        self._resumed = False

    def stop(self, *, resume_false: bool) -> None:
        """The user takes the floor."""
        silenced = self._mouth.barge_in()
        self._cut = _cut(silenced) if resume_false and not self._resumed else None
        played = NEW_TURN_PLAYED_MS if silenced.played_ms is None else silenced.played_ms
        self._machine.bot_stopped(self._ears.now_ms, played, resumable=self._cut is not None)
        if self._machine.resumable:
            self._dialogue.wait()
        else:
            self._give_up()
        self._ears.flush()

    def take_floor(self) -> None:
        """The user goes on in writing: what is being said and what waits to be said is void."""
        self._mouth.barge_in()
        self._give_up()

    def turn_continued(self) -> None:
        """Answers are void, unless it is not known yet whether this was a cough."""
        if self._cut is None:
            self._give_up()

    def words(self) -> None:
        """The user says something."""
        if self._cut is not None and not self._machine.resumable:
            self._give_up()

    def turn_ended(self) -> None:
        """The user said something: the next false interruption may be mended again."""
        self._resumed = False
        self._cut = None

    def resume(self) -> None:
        """No words followed. What was heard before the cut belongs to the record after all."""
        cut, self._cut = self._cut, None
        if cut is None:
            return
        self._resumed = True
        history = self._dialogue.history
        shown = cut.rest.remembered or not self._dialogue.thinks
        history.assistant_heard(cut.message_id, cut.heard, in_llm_context=shown)
        history.assistant_says(cut.rest.message_id, cut.rest.text, in_llm_context=shown)
        cut.rest.announced_text = cut.rest.text
        self._mouth.enqueue(cut.rest)
        for waiting in cut.waiting:
            self._mouth.enqueue(_again(waiting))
        self._dialogue.go_on()
        log.info("false_interruption_resumed")

    def abandon(self) -> None:
        """The caller is no longer listened to, or the agent wants nothing more said: nothing will be spoken on."""
        if self._cut is not None:
            self._give_up()

    def _give_up(self) -> None:
        self._cut = None
        self._machine.resumable = False
        self._dialogue.interrupted()
        self._mouth.drop_replies()


def _cut(silenced: Silenced) -> _Cut | None:
    """What may be spoken on; None when that is nothing, or is for the agent's program to write."""
    more = silenced.open
    if (not silenced.rest) if more is None else more.origin is not Origin.SERVER:
        return None
    rest = Utterance(new_id("msg"), "", Origin.GREETING, remembered=silenced.remembered)
    rest.write(silenced.rest)
    if more is None:
        rest.close()
    else:
        more.continue_in(rest)
    return _Cut(silenced.message_id, silenced.heard, rest, silenced.waiting)


def _again(dropped: Utterance) -> Utterance:
    """The same words as another message: of the first one, agents were told that it is over."""
    again = Utterance(new_id("msg"), "", Origin.GREETING, remembered=dropped.remembered)
    again.announced_text = dropped.text
    again.write(dropped.text)
    again.close()
    return again
