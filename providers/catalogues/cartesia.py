"""The voices a Cartesia account may use (`GET /voices`)."""

from __future__ import annotations

import msgspec

from providers.catalogues.catalogue import CatalogueVoice, with_aliases
from providers.catalogues.languages import spoken
from providers.catalogues.reading import MAX_PAGES, CatalogueDoor
from wire.engines import CARTESIA_ALIASES

VERSION = "2026-08-14"
"""Every request names the date of the API it was written for."""
_GENDERS = {"masculine": "male", "feminine": "female", "gender_neutral": "neutral"}


class _Voice(msgspec.Struct):
    id: str
    name: str | None = None
    description: str | None = None
    language: str | None = None
    gender: str | None = None
    preview_file_url: str | None = None


class _Page(msgspec.Struct):
    data: list[_Voice]
    has_more: bool = False


async def cartesia_voices(api_key: str, base_url: str) -> tuple[CatalogueVoice, ...]:
    """All of them. Raises ProviderError."""
    headers = {"Authorization": f"Bearer {api_key}", "Cartesia-Version": VERSION}
    door = CatalogueDoor("cartesia", base_url, headers)
    found: dict[str, CatalogueVoice] = {}
    asked = [("limit", "100"), ("expand[]", "preview_file_url")]
    query = asked
    async with door.client() as http:
        for _ in range(MAX_PAGES):
            page = await door.page(http, "/voices", query, _Page)
            found |= {voice.id: _read(voice) for voice in page.data}
            if not page.has_more or not page.data:
                break
            query = [*asked, ("starting_after", page.data[-1].id)]
    return with_aliases(found.values(), CARTESIA_ALIASES)


def _read(voice: _Voice) -> CatalogueVoice:
    return CatalogueVoice(
        id=voice.id,
        name=voice.name or voice.id,
        provider="cartesia",
        gender=_GENDERS.get(voice.gender or "", voice.gender),
        description=voice.description,
        languages=(spoken(voice.language.replace("_", "-")),) if voice.language else (),
        preview_url=voice.preview_file_url,
    )
