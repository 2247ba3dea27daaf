"""Reading what Deepgram says: JSON texts that name their type. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

import msgspec

M = TypeVar("M", bound=msgspec.Struct)


class _Envelope(msgspec.Struct):
    type: str


_envelope = msgspec.json.Decoder(_Envelope)


class Unreadable(ValueError):
    """A message that is not what Deepgram documents."""


class MessageReader(Generic[M]):
    """Reads the messages of one API, each into the struct that goes with its `type`."""

    def __init__(self, types: Iterable[tuple[str, type[M]]]) -> None:
        self._decoders = {name: msgspec.json.Decoder(struct) for name, struct in types}

    def read(self, message: str | bytes) -> M | None:
        """One message; None for a type that is new to us. Raises Unreadable."""
        try:
            decoder = self._decoders.get(_envelope.decode(message).type)
            return decoder.decode(message) if decoder else None
        except (msgspec.DecodeError, UnicodeDecodeError) as garbage:
            raise Unreadable("not a message of Deepgram's") from garbage
