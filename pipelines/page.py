"""What the page in the user's browser may do to its own call, beside being heard and hearing (docs/browser.md).

A page is the caller, and a stranger: it types, it shows what is on it, it mutes its user and chooses how this session
sounds. It commands nothing that is the agent's.
"""

from __future__ import annotations

import msgspec
import structlog

from pipelines.attention import Attention
from pipelines.barge_in import BargeIn
from pipelines.session import Organs, Reconfigurable, Session
from providers.errors import ProviderError
from wire.commands import RawConfig
from wire.errors import ConfigError
from wire.events import CallUpdated, ToolCallRequest
from wire.fields import base_language
from wire.page_events import LlmToolOutcome, ToolOutcome

log = structlog.get_logger(__name__)


class Page:
    """The page's grip on one call."""

    def __init__(
        self, organs: Organs, session: Session, attention: Attention, barge_in: BargeIn, call: Reconfigurable
    ) -> None:
        self._organs = organs
        self._session = session
        self._attention = attention
        self._barge_in = barge_in
        self._call = call
        self._mind = organs.dialogue.mind
        self._mind.tools.on_result = self._tool_ran

    def mute(self, *, on: bool) -> None:
        """The user does not want to be listened to, or does again."""
        if on:
            self._attention.mute_self()
        else:
            self._attention.unmute_self()

    def write(self, text: str) -> None:
        """A turn of the user that is written, not spoken. It silences the bot."""
        self._barge_in.take_floor()
        self._organs.ears.read(text)

    def show(self, key: str, value: str | None) -> None:
        """What is to be seen on the page, for the model; None: no more."""
        if not self._mind.prompt.set_page_context(key, value):
            log.warning("page_context_refused", size=len(value or ""))

    def configure(self, config: RawConfig) -> dict[str, msgspec.Raw]:
        """Take on these settings for the rest of the session, as far as they can be had; answers which were."""
        before = base_language(self._session.config.language)
        taken = self._take(config) if config else {}
        after = base_language(self._session.config.language)
        if after != before:
            self._call.publish(CallUpdated(language=after))
        return taken

    def _tool_ran(self, request: ToolCallRequest, result: str) -> None:
        """A function has run for this call; pages show it."""
        outcome = ToolOutcome(request.id, result)
        msg_id = self._mind.tools.round_of(request.id)
        self._call.publish(
            LlmToolOutcome(msg_id=msg_id, tool_call_id=request.id, name=request.name, result=result, results=[outcome])
        )

    def _take(self, config: RawConfig) -> dict[str, msgspec.Raw]:
        try:
            self._session.apply(config, self._organs, self._call)
        except (ConfigError, ProviderError) as error:
            if len(config) > 1:
                taken: dict[str, msgspec.Raw] = {}
                for key, value in config.items():
                    taken |= self._take({key: value})
                return taken
            log.warning("page_setting_refused", keys=sorted(config), error=str(error))
            return {}
        return config
