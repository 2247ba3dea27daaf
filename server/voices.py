"""The voices of all vendors: fetched when asked for, kept a while, and the last good list when a vendor fails.

Short names in configurations (`elevenlabs/nadia`) are looked up here when a call begins. A list nobody has yet is
fetched as soon as an agent names such a voice, so that it is there when somebody calls; until then, and for a name
that no list knows, the name is taken for the vendor's own id.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from pipelines.clock import Clock
from providers.catalogues.catalogue import CatalogueVoice, VoiceSource
from providers.errors import ProviderError, TimedOut
from wire.config import CallConfig, CartesiaVoice, ElevenLabsVoice, PollyVoice, VoiceConfig

log = structlog.get_logger(__name__)

KEPT_SECONDS: Final = 900.0
"""A list is good for that long."""
RETRY_SECONDS: Final = 30.0
"""A vendor that failed is left alone for that long."""
READING_SECONDS: Final = 20.0
"""For all pages of a list."""
PATIENCE_SECONDS: Final = 3.0
"""Who asks gets the old list when the new one takes longer."""

_MAX_LISTS: Final = 256
"""Of all accounts there ever were; those that are due first are dropped beyond that."""

Sources = Callable[[str, str], VoiceSource | None]
"""By provider and the organisation's own key for it (or ""): None where there is nothing to read."""

NO_KEYS: Final[Mapping[str, str]] = {}
_ALIAS: Final = re.compile(r"[a-z0-9]{1,19}(-[0-9]+)?", re.IGNORECASE)
_PROVIDERS: Final[Mapping[type[VoiceConfig], str]] = {
    ElevenLabsVoice: "elevenlabs",
    CartesiaVoice: "cartesia",
    PollyVoice: "polly",
}
"""Whose voices have short names. The built-in ones go by their language anyway."""


@dataclass(slots=True)
class _Shelf:
    """One vendor's list. `due` is when to ask again, on the clock."""

    read: VoiceSource
    voices: tuple[CatalogueVoice, ...] | None = None
    aliases: dict[str, str] = field(default_factory=dict[str, str])
    due: float = 0.0
    failure: ProviderError | None = None
    reading: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether it is being read."""
        return self.reading is not None and not self.reading.done()


class Voices:
    """The lists of this process. Use inside the event loop; `aclose` ends what is being read."""

    def __init__(self, sources: Sources, clock: Clock) -> None:
        self._sources = sources
        self._clock = clock
        self._shelves: dict[tuple[str, str], _Shelf] = {}
        self._closed = False

    async def of(self, provider: str, keys: Mapping[str, str] = NO_KEYS) -> tuple[CatalogueVoice, ...]:
        """A provider's voices; of an unknown one, or one without a key, none. `keys` are the asker's own, by provider.

        Takes some seconds at most. Raises ProviderError when there is nothing to show.
        """
        shelf = self._shelf(provider, keys)
        if shelf is None:
            return ()
        reading = self._read_soon(provider, shelf)
        if reading is not None:
            await asyncio.wait([reading], timeout=None if shelf.voices is None else PATIENCE_SECONDS)
        if shelf.voices is not None:
            return shelf.voices
        if shelf.failure is not None:
            # Raised once for everybody who asks: it would remember all of them.
            raise shelf.failure.with_traceback(None)
        raise TimedOut(f"{provider} was not asked", vendor=provider, code="VOICES_UNAVAILABLE")

    def settle(self, config: CallConfig, keys: Mapping[str, str] = NO_KEYS) -> CallConfig:
        """The same with the vendor's id in place of a short name. Asks nobody, but may begin to fetch a list."""
        provider, name = _PROVIDERS.get(type(config.voice), ""), config.voice.voice_id
        shelf = self._shelf(provider, keys)
        if shelf is None or name is None:
            return config
        voice_id = shelf.aliases.get(name.lower())
        if _ALIAS.fullmatch(name):
            self._read_soon(provider, shelf)
        if voice_id is None or voice_id == name:
            return config
        return msgspec.structs.replace(config, voice=msgspec.structs.replace(config.voice, voice_id=voice_id))

    async def aclose(self) -> None:
        """Stop reading. Idempotent."""
        self._closed = True
        reading = [shelf.reading for shelf in self._shelves.values() if shelf.reading is not None]
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)

    def _shelf(self, provider: str, keys: Mapping[str, str]) -> _Shelf | None:
        key = keys.get(provider, "")
        shelf = self._shelves.get((provider, key))
        if shelf is None:
            source = self._sources(provider, key)
            if source is None:
                return None
            self._make_room()
            shelf = self._shelves[provider, key] = _Shelf(source)
        return shelf

    def _make_room(self) -> None:
        if len(self._shelves) >= _MAX_LISTS:
            idle = [(shelf.due, known) for known, shelf in self._shelves.items() if not shelf.busy]
            for _, known in sorted(idle)[: _MAX_LISTS // 2]:
                del self._shelves[known]

    def _read_soon(self, provider: str, shelf: _Shelf) -> asyncio.Task[None] | None:
        """The reading everybody waits for; None when there is no need for one, or no hope yet."""
        if shelf.busy:
            return shelf.reading
        if self._closed or self._clock.now() < shelf.due:
            return None
        shelf.reading = asyncio.create_task(self._read(provider, shelf), name=f"voices {provider}")
        return shelf.reading

    async def _read(self, provider: str, shelf: _Shelf) -> None:
        try:
            async with asyncio.timeout(READING_SECONDS):
                voices = await shelf.read()
        except TimeoutError:
            text = f"{provider}'s voices took longer than {READING_SECONDS:g} s"
            self._failed(provider, shelf, TimedOut(text, vendor=provider, code="VOICES_UNAVAILABLE"))
        except ProviderError as error:
            self._failed(provider, shelf, error)
        except Exception:
            # The root of this task: nobody else would tell.
            log.exception("voices_failed", provider=provider)
            text = f"{provider}'s voices cannot be read"
            self._failed(provider, shelf, TimedOut(text, vendor=provider, code="VOICES_UNAVAILABLE"))
        else:
            shelf.voices, shelf.failure = voices, None
            shelf.aliases = {voice.alias: voice.id for voice in voices}
            shelf.due = self._clock.now() + KEPT_SECONDS
            log.info("voices_read", provider=provider, voices=len(voices))

    def _failed(self, provider: str, shelf: _Shelf, error: ProviderError) -> None:
        shelf.failure = error
        shelf.due = self._clock.now() + RETRY_SECONDS
        log.warning("voices_unavailable", provider=provider, error=str(error), old_list=shelf.voices is not None)
