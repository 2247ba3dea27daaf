"""The voices of an ElevenLabs account (`GET /v2/voices`)."""

from __future__ import annotations

import msgspec

from providers.catalogues.catalogue import CatalogueVoice, with_aliases
from providers.catalogues.languages import SpokenLanguage, spoken
from providers.catalogues.reading import MAX_PAGES, CatalogueDoor
from wire.engines import ELEVENLABS_ALIASES


class _Verified(msgspec.Struct):
    language: str = ""
    locale: str | None = None


class _Voice(msgspec.Struct):
    voice_id: str
    name: str | None = None
    labels: dict[str, str | None] | None = None
    description: str | None = None
    preview_url: str | None = None
    verified_languages: list[_Verified] | None = None


class _Page(msgspec.Struct):
    voices: list[_Voice]
    has_more: bool = False
    next_page_token: str | None = None


async def elevenlabs_voices(api_key: str, base_url: str) -> tuple[CatalogueVoice, ...]:
    """All of them. Raises ProviderError."""
    door = CatalogueDoor("elevenlabs", base_url, {"xi-api-key": api_key})
    found: dict[str, CatalogueVoice] = {}
    query = [("page_size", "100")]
    async with door.client() as http:
        for _ in range(MAX_PAGES):
            page = await door.page(http, "/v2/voices", query, _Page)
            # The first page may hold some that come again later.
            found |= {voice.voice_id: _read(voice) for voice in page.voices if voice.voice_id not in found}
            if not page.has_more or not page.next_page_token:
                break
            query = [("page_size", "100"), ("next_page_token", page.next_page_token)]
    return with_aliases(found.values(), ELEVENLABS_ALIASES)


def _read(voice: _Voice) -> CatalogueVoice:
    labels = voice.labels or {}
    style = labels.get("descriptive") or labels.get("use_case")
    return CatalogueVoice(
        id=voice.voice_id,
        name=voice.name or voice.voice_id,
        provider="elevenlabs",
        gender=labels.get("gender"),
        style=style.replace("_", " ") if style else None,
        description=voice.description or labels.get("description"),
        languages=_languages(voice, labels.get("language")),
        preview_url=voice.preview_url,
    )


def _languages(voice: _Voice, labelled: str | None) -> tuple[SpokenLanguage, ...]:
    """Each language once: the account's models bring the same ones again and again."""
    codes: dict[str, str] = {labelled: ""} if labelled else {}
    for one in voice.verified_languages or ():
        if one.language and not codes.get(one.language):
            codes[one.language] = one.locale or ""
    return tuple(spoken(code, locale) for code, locale in codes.items())
