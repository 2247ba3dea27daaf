"""The user takes the floor, and gives it back if it was a cough (behaviour §6.6).

When a voice stopped the bot but no words followed, the rest of what it was saying is spoken on, from the word after the
last one heard, once a turn. That goes for the agent's own replies too, as long as all of their text is known: silence
would serve nobody, and the agent sees the rest as a message like any other.
"""

from __future__ import annotations

import structlog

from pipelines.ids import new_id
from pipelines.listening.ears import Ears
from pipelines.listening.turn import NEW_TURN_PLAYED_MS, TurnMachine
from pipelines.speaking.listener import Silenced
from pipelines.speaking.mouth import Mouth
from pipelines.speaking.utterance import Origin, Utterance
from pipelines.thinking.dialogue import Dialogue

log = structlog.get_logger(__name__)


class BargeIn:
    """Stops the bot for the user, and lets it go on."""

    def __init__(self, machine: TurnMachine, ears: Ears, mouth: Mouth, dialogue: Dialogue) -> None:
        self._machine = machine
        self._ears = ears
        self._mouth = mouth
        self._dialogue = dialogue
        self._cut: Silenced | None = None
        """What was cut off, until it is known whether words followed."""
        self._resumed = False

    def turn_ended(self) -> None:
        """The user said something: the next false interruption may be mended again."""
        self._resumed = False

    def stop(self, *, resume_false: bool) -> None:
        """The user takes the floor."""
        silenced = self._mouth.barge_in()
        self._dialogue.interrupted()
        wanted = resume_false and not self._resumed and bool(silenced.rest)
        self._cut = silenced if wanted else None
        played = NEW_TURN_PLAYED_MS if silenced.played_ms is None else silenced.played_ms
        self._machine.bot_stopped(self._ears.now_ms, played, resumable=wanted)
        self._ears.flush()

    def resume(self) -> None:
        """No words followed. What was heard before the cut belongs to the record after all."""
        cut, self._cut = self._cut, None
        if cut is None:
            return
        self._resumed = True
        self._dialogue.history.assistant_heard(cut.message_id, cut.heard)
        rest = Utterance(new_id("msg"), "", Origin.GREETING, remembered=True)
        rest.announced_text = cut.rest
        rest.write(cut.rest)
        rest.close()
        self._mouth.enqueue(rest)
        log.info("false_interruption_resumed")
