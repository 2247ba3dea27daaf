"""Built-in speech recognition: pocketsphinx with a grammar, with phrases, or (poorly) with an open vocabulary.

English only. Measured on synthetic speech at 16 kHz: word error rate 0.58 with the open vocabulary, 0.88 through a
telephone line; with a grammar of what can be said, whole sentences come out right 7 to 9 times in 10. For
demonstrations, tests and menus; a vendor's recogniser is what people should talk to.
"""

from __future__ import annotations

import asyncio
import functools
import mmap
from collections.abc import AsyncIterator
from pathlib import Path

import pocketsphinx
import structlog

from providers.base import PCM_16K, SttEvent, Transcript
from providers.errors import ProviderError, Refused
from providers.local import grammar
from providers.local.gate import SpeechGate
from providers.local.sphinx_process import Line, SphinxProcess, shared
from wire.config import LocalStt

SEND_BYTES = 3200
"""Audio goes to the recogniser in pieces of 100 ms, or when it is asked for the final text."""
TAIL_BYTES = 32 * 200
"""Silence after the last sound, so that the last word is seen to end."""
MAX_EVENTS = 64
"""Events not taken yet; the oldest is dropped."""

log = structlog.get_logger(__name__)


def check_grammar(text: str) -> None:
    """Raises ValueError that tells the developer what is wrong with a JSGF text: syntax, rules or unknown words."""
    grammar.check(text, known_word)


class _Dictionary:
    """The pronunciation dictionary that comes with the engine: 134 860 sorted lines, searched where they lie."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __contains__(self, word: str) -> bool:
        wanted, low, high = word.encode(), 0, len(self._text)
        while low < high:
            start = self._text.rfind(b"\n", low, (low + high) // 2) + 1 or low
            end = self._text.find(b"\n", start)
            found = self._text[start : self._text.find(b" ", start)].partition(b"(")[0]  # `read(2)`: another `read`
            if found == wanted:
                return True
            if found < wanted:
                low = end + 1
            else:
                high = start
        return False


@functools.cache
def _dictionary() -> _Dictionary:
    return _Dictionary(Path(pocketsphinx.__file__).parent / "model" / "en-us" / "cmudict-en-us.dict")


def known_word(word: str) -> bool:
    """Whether the recogniser can hear `word` (lower case)."""
    return word in _dictionary()


class LocalSpeechToText:
    """One call's recogniser (`providers.base.SpeechToText`), on the shared recogniser process.

    Interims come at most every 200 ms of speech, the final text of a segment after `finalize` (also when it is empty).
    """

    input = PCM_16K
    native_turns = False

    def __init__(self, config: LocalStt, process: SphinxProcess | None = None) -> None:
        self._config = config
        self._process = process
        self._line: Line | None = None
        self._gate = SpeechGate()
        self._outgoing = bytearray()
        self._events: asyncio.Queue[SttEvent | ProviderError | None] = asyncio.Queue(MAX_EVENTS)
        self._speaking = False
        self._closed = False

    async def start(self) -> None:
        """Have a decoder and the grammar ready. Raises Refused (grammar), Unavailable, TimedOut."""
        text = self._grammar()
        self._process = self._process or shared()
        self._line = await self._process.open(text, self._on_text, self._on_lost)

    def feed(self, audio: bytes) -> None:
        """Take 16-bit audio at 16 kHz. While nobody speaks this costs a level measurement and no more."""
        heard = self._gate.feed(audio)
        if not heard:
            return
        self._speaking = True
        self._outgoing += heard
        if len(self._outgoing) >= SEND_BYTES:
            self._flush()

    def finalize(self) -> None:
        """End the segment: its final text comes at once, and a new segment begins."""
        if self._process is None or self._line is None:
            return
        if self._speaking:
            self._outgoing += bytes(TAIL_BYTES)
            self._flush()
        self._gate.shut()
        self._speaking = False
        self._process.finish(self._line)

    async def events(self) -> AsyncIterator[SttEvent]:
        """All events until `aclose`. Raises Unavailable when the recogniser process died."""
        while (event := await self._events.get()) is not None:
            if isinstance(event, ProviderError):
                raise event
            yield event

    async def aclose(self) -> None:
        """Leave the recogniser process. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._process is not None and self._line is not None:
            self._process.close(self._line)
        self._put(None)

    def _grammar(self) -> str | None:
        """The grammar to use. Raises Refused for one that cannot be used."""
        if self._config.grammar is not None:
            try:
                check_grammar(self._config.grammar)
            except ValueError as error:
                raise Refused(str(error), vendor="local", code="CONFIG_ERROR") from error
            return self._config.grammar
        if not self._config.keyterms:
            return None
        text, unknown = grammar.from_phrases(self._config.keyterms, known_word)
        if unknown:
            log.warning("keyterms_unknown", words=unknown)
        return text

    def _flush(self) -> None:
        if self._process is not None and self._line is not None and self._outgoing:
            self._process.hear(self._line, bytes(self._outgoing))
        self._outgoing.clear()

    def _on_text(self, text: str, final: bool) -> None:
        self._put(Transcript(text, is_final=final, language="en"))

    def _on_lost(self, error: ProviderError) -> None:
        self._line = None
        self._put(error)

    def _put(self, event: SttEvent | ProviderError | None) -> None:
        if self._events.full():
            self._events.get_nowait()
        self._events.put_nowait(event)
