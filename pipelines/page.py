"""What the page in the user's browser may do to its own call, beside being heard and hearing (docs/browser.md).

A page is the caller, and a stranger: it types, it shows what is on it, it mutes its user and chooses how this session
sounds. It commands nothing that is the agent's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from pipelines.attention import Attention
from pipelines.barge_in import BargeIn
from pipelines.events import CallEvents
from pipelines.listening.ears import Ears
from pipelines.thinking.mind import Mind
from providers.errors import ProviderError
from wire.commands import RawConfig
from wire.errors import ConfigError
from wire.events import CallUpdated, ToolCallRequest
from wire.fields import base_language
from wire.page_events import LlmToolOutcome, ToolOutcome

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """The page's grip on one call. `change` raises ConfigError or ProviderError, and then nothing has changed."""

    ears: Ears
    barge_in: BargeIn
    attention: Attention
    events: CallEvents
    mind: Mind
    change: Callable[[RawConfig], None]
    language: Callable[[], str]

    def mute(self, *, on: bool) -> None:
        """The user does not want to be listened to, or does again."""
        if on:
            self.attention.mute_self()
        else:
            self.attention.unmute_self()

    def write(self, text: str) -> None:
        """A turn of the user that is written, not spoken. It silences the bot."""
        self.barge_in.take_floor()
        self.ears.read(text)

    def show(self, key: str, value: str | None) -> None:
        """What is to be seen on the page, for the model; None: no more."""
        if not self.mind.prompt.set_page_context(key, value):
            log.warning("page_context_refused", size=len(value or ""))

    def configure(self, config: RawConfig) -> dict[str, msgspec.Raw]:
        """Take on these settings for the rest of the session, as far as they can be had; answers which were."""
        before = base_language(self.language())
        taken = self._take(config) if config else {}
        after = base_language(self.language())
        if after != before:
            self.events.publish(CallUpdated(language=after))
        return taken

    def tool_ran(self, request: ToolCallRequest, result: str) -> None:
        """A function has run for this call; pages show it."""
        outcome = ToolOutcome(request.id, result)
        msg_id = self.mind.tools.round_of(request.id)
        self.events.publish(
            LlmToolOutcome(msg_id=msg_id, tool_call_id=request.id, name=request.name, result=result, results=[outcome])
        )

    def _take(self, config: RawConfig) -> dict[str, msgspec.Raw]:
        try:
            self.change(config)
        except (ConfigError, ProviderError) as error:
            if len(config) > 1:
                taken: dict[str, msgspec.Raw] = {}
                for key, value in config.items():
                    taken |= self._take({key: value})
                return taken
            log.warning("page_setting_refused", keys=sorted(config), error=str(error))
            return {}
        return config
