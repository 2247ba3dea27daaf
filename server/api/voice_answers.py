"""Lists of voices as they are sent. Anybody may ask for them without a key, and a vendor may have thousands: so each
list is written once, and what is asked of it is put together from what was written."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from fastapi import Response

from providers.catalogues.catalogue import CatalogueVoice
from server.api import listings
from server.api.errors import JsonAnswer

_MAX_LISTS: Final = 16
"""Those asked for last; the others are written again."""

List = tuple[CatalogueVoice, ...]


class VoiceAnswers:
    """What was written of the lists there are. A list that was read anew is another one."""

    def __init__(self) -> None:
        self._written: OrderedDict[int, tuple[List, list[bytes]]] = OrderedDict()
        """By identity; each keeps its list alive, so that no other can take its number."""

    def __len__(self) -> int:
        return len(self._written)

    def answer(self, found: List, language: str) -> Response:
        """`GET /api/sdk/voices`: those whose language codes begin with `language`, in the vendor's order."""
        rows = [row for voice, row in zip(found, self._rows(found), strict=True) if voice.speaks(language)]
        body = b'{"success":true,"total":%d,"voices":[%b]}' % (len(rows), b",".join(rows))
        return Response(body, media_type=JsonAnswer.media_type)

    def _rows(self, found: List) -> list[bytes]:
        known = self._written.pop(id(found), None)
        rows = [listings.voice(voice).row() for voice in found] if known is None else known[1]
        self._written[id(found)] = (found, rows)
        if len(self._written) > _MAX_LISTS:
            self._written.popitem(last=False)
        return rows
