"""What the gateway and its recogniser process say to each other over a pipe: length-prefixed MessagePack.

pocketsphinx holds the interpreter's lock while it works (measured: 138 ms to finish a sentence with the open
vocabulary, 156-312 ms to make a decoder), so a thread would stop every call; a process does not.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

LENGTH = 4
"""Bytes of the little-endian length before each message."""


class Open(msgspec.Struct, tag="open", array_like=True):
    """A call wants to be recognised, with a JSGF grammar or (None) the open vocabulary. Answered by `Opened`."""

    stream: int
    grammar: str | None


class Audio(msgspec.Struct, tag="audio", array_like=True):
    """16-bit mono audio at 16 kHz of the segment."""

    stream: int
    pcm: bytes


class Finish(msgspec.Struct, tag="finish", array_like=True):
    """The segment is over; its final text is answered, also when it is empty."""

    stream: int


class Close(msgspec.Struct, tag="close", array_like=True):
    """Forget the call."""

    stream: int


class Opened(msgspec.Struct, tag="opened", array_like=True):
    """The call can be recognised, or why not."""

    stream: int
    error: str | None = None


class Text(msgspec.Struct, tag="text", array_like=True):
    """The words of the segment so far."""

    stream: int
    text: str
    final: bool


Request = Open | Audio | Finish | Close
Report = Opened | Text


def pack(message: Request | Report) -> bytes:
    """A message as it goes over the pipe."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH, "little") + body


def bodies(buffer: bytearray) -> Iterator[bytes]:
    """Take the complete messages off the front of `buffer`."""
    while len(buffer) >= LENGTH:
        end = LENGTH + int.from_bytes(buffer[:LENGTH], "little")
        if len(buffer) < end:
            return
        body = bytes(buffer[LENGTH:end])
        del buffer[:end]
        yield body
