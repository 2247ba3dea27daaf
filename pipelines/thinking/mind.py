"""What a model is asked with, whatever the medium: instructions, the record, the tools on offer.

Speech (`pipelines.thinking.dialogue`) and text (`pipelines.chatting`) differ in when they ask and in how the answer
reaches the user; what the model is told is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from pipelines.clock import Clock
from pipelines.thinking.history import History
from pipelines.thinking.prompt import Prompt
from pipelines.thinking.tools import ToolRounds
from providers.base import Generation, LanguageModel
from wire.config import CallConfig
from wire.events import CallEvent, CallMessage

log = structlog.get_logger(__name__)

MAX_ROUNDS = 8
"""Tool rounds of one turn; after them the model must answer in words (protocol §4.9)."""


class Mind:
    """The memory of one conversation, and the settings it thinks with. Without a model it only remembers."""

    def __init__(
        self, config: CallConfig, model: LanguageModel | None, publish: Callable[[CallEvent], None], clock: Clock
    ) -> None:
        self.config = config
        self.model = model
        self.history = History()
        self.prompt = Prompt(config.prompt, config.vars, config.timezone)
        self.tools = ToolRounds(config.tools, self.history, publish)
        self._clock = clock

    @property
    def thinks(self) -> bool:
        """True when the server answers, False when the agent's own program does."""
        return self.model is not None

    def configure(self, config: CallConfig, model: LanguageModel | None) -> None:
        """Think by this from the next turn on. Instructions, variables and tools change only where `config` differs
        from what it was: what was set during the conversation stays."""
        old, self.config, self.model = self.config, config, model
        if config.prompt != old.prompt:
            self.prompt.set_instructions(config.prompt)
        if config.vars != old.vars:
            self.prompt.set_vars(config.vars)
        self.tools.configure(config.tools)

    def system(self) -> str:
        """The system prompt as of now."""
        prompt = self.prompt.render(datetime.fromtimestamp(self._clock.wall(), UTC))
        if self.prompt.unknown:
            log.warning("prompt_variables_unset", names=sorted(self.prompt.unknown))
            self.prompt.unknown.clear()
        return prompt

    def request(self, config: CallConfig, *, last: bool = False) -> Generation:
        """What to ask the model of `config` now; `last` forbids tools."""
        assert config.llm is not None
        messages = self.history.messages_for_llm(self.system())
        return Generation(config.llm, messages, config.tools, force_text=last)

    def record(self) -> list[CallMessage]:
        """The whole conversation, for the event that ends it."""
        self.history.forget_ephemeral()
        return self.history.record(self.system() if self.thinks else "")
