"""What an organisation's calls and chats run on: vendors with its own keys or the server's, and what they allow."""

from __future__ import annotations

from collections.abc import Sequence

from providers.catalogues.catalogue import CatalogueVoice
from server.engines import CallEngines, Engines, check
from server.organisations.directory import Organisations
from server.organisations.roll import Limits
from server.settings import Settings
from server.voices import Voices
from wire.config import CallConfig
from wire.layers import Layer
from wire.resolve import ServerDefaults, resolve


class Supply:
    """Looked up anew for each call, so that a key that was changed counts for the next one."""

    def __init__(self, settings: Settings, organisations: Organisations, engines: CallEngines, voices: Voices) -> None:
        """`engines` are those with the server's own keys."""
        self._settings = settings
        self._organisations = organisations
        self._engines = engines
        self._voices = voices
        self._defaults: dict[frozenset[str], ServerDefaults] = {}

    def engines(self, org_id: str) -> CallEngines:
        """The vendors, asked with this organisation's keys where it has its own."""
        return self._engines.with_keys(self._organisations.of(org_id).credentials)

    def limits(self, org_id: str) -> Limits:
        """How much this organisation may have at one time."""
        return self._organisations.limits(org_id)

    def resolve(self, org_id: str, layers: Sequence[Layer]) -> CallConfig:
        """What a call on these layers would run on. Raises `ConfigError` for what could not serve one."""
        config = resolve(layers, self._of(org_id))
        check(config)
        return self._voices.settle(config, self._organisations.of(org_id).credentials)

    async def voices(self, org_id: str, provider: str) -> tuple[CatalogueVoice, ...]:
        """The voices of a provider that this organisation may name; "" sees those of the server. As `Voices.of`."""
        return await self._voices.of(provider, self._organisations.of(org_id).credentials)

    def _of(self, org_id: str) -> ServerDefaults:
        own = frozenset(self._organisations.of(org_id).credentials)
        if own not in self._defaults:
            self._defaults[own] = self._settings.server_defaults(Engines.served, own)
        return self._defaults[own]
