"""The call's mind on the server's side: the record of what was said, and the model that answers where there is one.

An answer may be thought of before the turn is certainly over (`prepare`); it is heard, and its tools run, only after
`answer`. What the user cuts off or makes obsolete is cancelled without a trace, except for tools that already ran:
their results stay in the record, and the next answer waits for them rather than running them again. An answer of which
nothing was heard is kept until the user says anything else: after a breath the same question is not asked, and paid
for, again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from pipelines.clock import Clock
from pipelines.ids import new_id
from pipelines.speaking.utterance import Origin, Utterance
from pipelines.thinking.history import History
from pipelines.thinking.mind import MAX_ROUNDS, Mind
from pipelines.thinking.phrases import apology
from providers.base import Generation, LanguageModel, TextDelta, ToolCall, ToolCalls
from providers.errors import ProviderError
from wire.commands import LlmToolResult
from wire.config import CallConfig
from wire.events import CallEvent, LlmError

log = structlog.get_logger(__name__)


class Stage(Protocol):
    """What the dialogue needs of its call."""

    def say(self, utterance: Utterance) -> bool:
        """Queue speech. False when too much is queued."""
        ...

    def publish(self, event: CallEvent) -> None:
        """State a fact."""
        ...

    def spawn(self, job: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run something as part of the call."""
        ...


@dataclass(slots=True, eq=False)
class _Answer:
    """One answer on its way. `wanted` turns False when the user went on while its tools were running; `thought` means
    that the model has no more to say, `written` that its last words so far are complete."""

    message_id: str
    said: str
    """What the user said."""
    config: CallConfig
    """The settings it was begun with: it is finished with them."""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    running_tools: bool = False
    spoke: bool = False
    wanted: bool = True
    thought: bool = False
    audible: bool = False
    request: Generation | None = None
    """What the model was asked first."""
    text: str = ""
    utterance: Utterance | None = None
    """The model's last words so far, and what carries them to the caller's ear."""
    written: bool = False
    asked_at: float | None = None
    tool_rounds: int = 0


class Dialogue:
    """Keeps the record of one call and lets the model answer. Without a model it only keeps the record."""

    def __init__(self, config: CallConfig, model: LanguageModel | None, stage: Stage, clock: Clock) -> None:
        self._stage = stage
        self._clock = clock
        self.mind = Mind(config, model, stage.publish, clock)
        self._said = ""
        self._answer: _Answer | None = None
        self._spare: _Answer | None = None
        """An answer that came too early, while it may still be the right one."""
        self._tail: asyncio.Task[None] | None = None
        """Tools of an answer that nobody wants any more; the next answer waits for them."""

    @property
    def thinks(self) -> bool:
        """True when the server answers, False when the agent's own program does."""
        return self.mind.thinks

    @property
    def history(self) -> History:
        """What was said."""
        return self.mind.history

    @property
    def busy(self) -> bool:
        """True while an answer is being made."""
        return self._answer is not None

    def configure(self, config: CallConfig, model: LanguageModel | None) -> bool:
        """Answer by this from the next turn on (`Mind.configure`). True when the model is gone before the turn it was
        already answering had ended: that answer is withdrawn, and its words are to be dropped."""
        self.mind.configure(config, model)
        if model is not None:
            return False
        withdrawn = self._answer is not None and not self._answer.released.is_set()
        if withdrawn:
            self.interrupted()
        self._drop_spare()
        return withdrawn

    # --- turns ---

    def user_said(self, turn_id: int, message_id: str, text: str) -> None:
        """The user's words of this turn so far."""
        self._said = text
        self.history.user(message_id, text, turn_id)

    def prepare(self, message_id: str) -> None:
        """The turn is probably over: think ahead."""
        model, config = self.mind.model, self.mind.config
        if model is None or (self._answer is not None and self._answer.message_id == message_id):
            return
        self.interrupted()
        if self._take_up(message_id):
            return
        answer = self._answer = _Answer(message_id, self._said, config)
        answer.task = self._stage.spawn(self._think(answer, model), "answer")

    def answer(self, message_id: str) -> None:
        """The turn is over."""
        if not self.thinks:
            return
        self.prepare(message_id)
        self.go_on()

    def wait(self) -> None:
        """It is not known whether the user goes on: write on, but begin nothing new."""
        if self._answer is not None:
            self._answer.released.clear()

    def go_on(self) -> None:
        """The user did not go on."""
        if self._answer is not None:
            self._answer.released.set()
            self._settle(self._answer)

    def interrupted(self) -> None:
        """The user went on: no answer to what was said so far."""
        answer, self._answer = self._answer, None
        if answer is None or answer.task is None:
            return
        if answer.running_tools:
            answer.wanted = False
            self._tail = answer.task
        elif answer.audible or answer.tool_rounds:
            answer.task.cancel()
        else:
            self._drop_spare()
            answer.released.clear()
            self._spare = answer

    def user_says(self, text: str) -> None:
        """The user is speaking; the turn's words as they look now."""
        if self._spare is not None and self._spare.said != text:
            self._drop_spare()

    def finish(self, turn_id: int, unfinished: str) -> None:
        """The call is over; `unfinished` are words of a turn that did not end."""
        if self._answer is not None and self._answer.task is not None:
            self._answer.task.cancel()
        self._answer = None
        self._drop_spare()
        if unfinished:
            self.history.user(new_id("u"), unfinished, turn_id)

    # --- what was said ---

    def on_audible(self, utterance: Utterance) -> None:
        """The caller begins to hear it: here is its place in the record."""
        if self._answer is not None and utterance is self._answer.utterance:
            self._answer.audible = True
        if utterance.origin is not Origin.SERVER:
            self.history.assistant_says(
                utterance.message_id, utterance.text, in_llm_context=utterance.remembered or not self.thinks
            )

    def on_record(self, utterance: Utterance, heard: str) -> None:
        """The caller heard these words of it and no more; none: it never was."""
        remembered = utterance.remembered or not self.thinks
        self.history.assistant_heard(utterance.message_id, heard, in_llm_context=remembered)

    def tool_result(self, command: LlmToolResult) -> None:
        """The agent's program ran a tool."""
        self.mind.tools.result(command)

    def agent_is_back(self) -> None:
        """The agent's program may have forgotten, or never heard, which tools it was to run."""
        self.mind.tools.ask_again()

    # --- inside ---

    def _take_up(self, message_id: str) -> bool:
        """Go on with an answer that came too early, if it is one to the very same question."""
        answer = self._spare
        if answer is None or answer.request != self.mind.request(self.mind.config):
            self._drop_spare()
            return False
        self._spare, self._answer = None, answer
        answer.message_id = message_id
        answer.utterance = None
        if answer.text:
            self._speak(answer, answer.text)
        if answer.written and answer.utterance is not None:
            answer.utterance.close()
        return True

    def _drop_spare(self) -> None:
        if self._spare is not None and self._spare.task is not None:
            self._spare.task.cancel()
        self._spare = None

    async def _think(self, answer: _Answer, model: LanguageModel) -> None:
        if self._tail is not None:
            await asyncio.wait([self._tail])
            self._tail = None
        try:
            for number in range(MAX_ROUNDS + 1):
                calls = await self._generate(answer, model, last=number == MAX_ROUNDS)
                if not calls or not await self._run_tools(answer, calls):
                    break
        except ProviderError as error:
            log.warning("model_failed", vendor=error.vendor, code=error.code, error=str(error))
            await answer.released.wait()
            self._stage.publish(LlmError(error="The language model failed", code=error.code))
            if answer.wanted and not answer.spoke:
                self._apologise(answer)
        finally:
            answer.thought = True
            self._settle(answer)

    def _settle(self, answer: _Answer) -> None:
        """Forget an answer that is complete; one thought of too early stays, so that nobody thinks of it again."""
        if answer.thought and answer.released.is_set() and self._answer is answer:
            self._answer = None
            self.history.forget_ephemeral()

    async def _generate(self, answer: _Answer, model: LanguageModel, *, last: bool) -> tuple[ToolCall, ...]:
        """One answer of the model: its words go to the mouth as they come, its tool calls are returned."""
        request = self.mind.request(answer.config, last=last)
        answer.request = answer.request or request
        answer.text, answer.utterance, answer.written = "", None, False
        calls: tuple[ToolCall, ...] = ()
        answer.asked_at = self._clock.now() if answer.asked_at is None else answer.asked_at
        try:
            async for event in model.generate(request):
                if isinstance(event, TextDelta):
                    self._write(answer, event.text)
                elif isinstance(event, ToolCalls):
                    calls = event.calls
        finally:
            answer.written = True
            if answer.utterance is not None:
                answer.utterance.close()
        return calls

    def _write(self, answer: _Answer, text: str) -> None:
        if not answer.text and not text.strip():
            return
        answer.text += text
        if answer is not self._spare:
            self._speak(answer, text)

    def _speak(self, answer: _Answer, text: str) -> None:
        utterance = answer.utterance = answer.utterance or self._new_utterance(answer)
        utterance.write(text)
        if not utterance.over:
            self.history.assistant_says(utterance.message_id, utterance.text)

    def _new_utterance(self, answer: _Answer) -> Utterance:
        answer.spoke = True
        utterance = Utterance(new_id("msg"), answer.message_id, Origin.SERVER, remembered=True)
        utterance.milestones.asked = answer.asked_at
        utterance.milestones.tool_rounds = answer.tool_rounds
        self._stage.say(utterance)
        return utterance

    def _apologise(self, answer: _Answer) -> None:
        """The caller is waiting for an answer that will not come. Models are not told that we apologised."""
        sorry = Utterance(new_id("msg"), answer.message_id, Origin.SERVER, remembered=False)
        sorry.announced_text = apology(self.mind.config.language)
        sorry.write(sorry.announced_text)
        sorry.close()
        self._stage.say(sorry)

    async def _run_tools(self, answer: _Answer, calls: tuple[ToolCall, ...]) -> bool:
        """Have tools run once the turn is certainly over; True when the model should go on."""
        await answer.released.wait()
        answer.running_tools = True
        answer.tool_rounds += 1
        follow_up = await self.mind.tools.run(calls)
        answer.running_tools = False
        await answer.released.wait()
        return follow_up and answer.wanted
