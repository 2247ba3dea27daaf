"""Built-in speech: espeak-ng, one short-lived process for each piece of text (11 ms of CPU a sentence).

A process and not the library, because espeak-ng is GPL-3: it stays a program of the machine that is merely run.
The text goes over its stdin, never on its command line, where other users of the machine could read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import numpy as np

from providers.base import AudioFormat, Encoding, SpeechChunk
from providers.errors import Garbled, ProviderError, Refused, TimedOut, Unavailable
from providers.timing import spread_words
from wire.config import LocalVoice

FORMAT = AudioFormat(Encoding.PCM16, 22050)
"""espeak-ng's own."""
DEADLINE = 5.0
"""Seconds for one piece of text."""
AT_ONCE = 2
"""Processes of one call at the same time: the piece that is heard next and the one after."""
MAX_PIECES = 256
"""Pieces of one utterance that may wait to be read."""
WORDS_A_MINUTE = 175
LEAD_MS = 20
"""Silence kept before the first sound of a piece."""
_AUDIBLE = 60
_CODE = "TTS_ERROR"
_VOICE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,63}")


class EspeakSpeech:
    """One call's voice (`providers.base.TextToSpeech`)."""

    output = FORMAT

    def __init__(self, config: LocalVoice, program: str = "espeak-ng") -> None:
        self._config = config
        self._program = program
        self._voices = _voices(config)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._open: set[EspeakStream] = set()

    async def warm(self) -> None:
        """Bring the program and its data into the page cache, and settle which voice the language has."""
        with contextlib.suppress(ProviderError):
            await self.speak(".")

    def open(self) -> EspeakStream:
        """Begin an utterance."""
        stream = EspeakStream(self)
        self._open.add(stream)
        return stream

    async def aclose(self) -> None:
        """Stop all utterances. Idempotent."""
        for stream in list(self._open):
            await stream.cancel()

    def forget(self, stream: EspeakStream) -> None:
        """`stream` is over."""
        self._open.discard(stream)

    async def speak(self, text: str) -> bytes:
        """The audio of `text` in `output` format, without silence before it. Raises ProviderError."""
        async with self._slots:
            try:
                async with asyncio.timeout(DEADLINE):
                    return _trimmed(await self._synthesise(text))
            except TimeoutError:
                raise TimedOut(f"espeak-ng took more than {DEADLINE:g} s", vendor="local", code=_CODE) from None

    async def _synthesise(self, text: str) -> bytes:
        complaint = b""
        while self._voices:
            code, output, complaint = await self._run(self._voices[0], text)
            if code == 0:
                return _samples(output)
            if b"voice does not exist" not in complaint:
                break
            if len(self._voices) == 1:
                raise Refused(f"espeak-ng has no voice {self._voices[0]!r}", vendor="local", code="CONFIG_ERROR")
            self._voices = self._voices[1:]
        raise Unavailable(f"espeak-ng failed: {complaint.decode(errors='replace')[:200]}", vendor="local", code=_CODE)

    async def _run(self, voice: str, text: str) -> tuple[int, bytes, bytes]:
        """Exit code, stdout, stderr. The process does not outlive this."""
        pace = str(max(80, min(450, round(WORDS_A_MINUTE * self._config.speed))))
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                "-b",
                "1",
                "-v",
                voice,
                "-s",
                pace,
                "--stdin",
                "--stdout",
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
            )
        except FileNotFoundError:
            raise Refused(
                f"{self._program} is not installed: apt-get install espeak-ng", vendor="local", code=_CODE
            ) from None
        except OSError as error:
            raise Unavailable(f"espeak-ng does not start: {error}", vendor="local", code=_CODE) from error
        try:
            output, complaint = await process.communicate(text.encode())
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await asyncio.shield(process.wait())
        return process.returncode or 0, output, complaint


class EspeakStream:
    """The speech of one utterance (`providers.base.SpeechStream`)."""

    def __init__(self, engine: EspeakSpeech) -> None:
        self._engine = engine
        self._pieces: asyncio.Queue[tuple[str, asyncio.Task[bytes]] | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[bytes]] = set()
        self._finished = False
        self._cancelled = False

    async def push(self, text: str) -> None:
        """Speak `text`; it is synthesised at once, while what was pushed before is still being read."""
        if self._finished or not text.strip():
            return
        if self._pieces.qsize() >= MAX_PIECES:
            raise Unavailable(f"{MAX_PIECES} pieces of speech wait to be read", vendor="local", code=_CODE)
        task = asyncio.create_task(self._engine.speak(text))
        self._tasks.add(task)
        self._pieces.put_nowait((text, task))

    async def finish(self) -> None:
        """No more text will come. Idempotent."""
        if not self._finished:
            self._finished = True
            self._pieces.put_nowait(None)

    async def chunks(self) -> AsyncIterator[SpeechChunk]:
        """One chunk a piece, in order. Raises ProviderError."""
        spoken = 0
        try:
            while (piece := await self._pieces.get()) is not None and not self._cancelled:
                text, task = piece
                try:
                    audio = await task
                except asyncio.CancelledError:
                    if not task.cancelled():
                        raise
                    return  # by `cancel`: the utterance ends here
                self._tasks.discard(task)
                start = FORMAT.duration_ms(spoken)
                spoken += len(audio)
                end = start + FORMAT.duration_ms(_audible(audio)[1])
                yield SpeechChunk(audio, spread_words(text, round(start), round(end)))
        finally:
            await self.cancel()

    async def cancel(self) -> None:
        """Stop the processes and end `chunks`. Idempotent."""
        self._cancelled = True
        await self.finish()
        for task in self._tasks:
            task.cancel()
        tasks, self._tasks = self._tasks, set()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._engine.forget(self)


def _voices(config: LocalVoice) -> list[str]:
    """What to ask espeak-ng for, best first. Raises Refused for a name that cannot be one."""
    if config.voice_id is not None:
        if not _VOICE.fullmatch(config.voice_id):
            raise Refused(f"{config.voice_id!r} is not an espeak-ng voice", vendor="local", code="CONFIG_ERROR")
        return [config.voice_id]
    language = config.language.lower().replace("_", "-")
    return list(dict.fromkeys(one for one in (language, language.split("-")[0], "en") if _VOICE.fullmatch(one)))


def _samples(wav: bytes) -> bytes:
    """The samples of a WAV whose header was written before its length was known. Raises Garbled."""
    if not wav:
        return b""
    at = wav.find(b"data", 0, 256)
    rate = int.from_bytes(wav[24:28], "little")
    if at < 0 or rate != FORMAT.rate:
        raise Garbled(f"espeak-ng gave no WAV at {FORMAT.rate} Hz (rate {rate})", vendor="local", code=_CODE)
    return wav[at + 8 :]


def _audible(pcm: bytes) -> tuple[int, int]:
    """Bytes before the first audible sample, and up to the end of the last one; all of it when none is."""
    loud = np.flatnonzero(np.abs(np.frombuffer(pcm, dtype=np.int16).astype(np.int32)) > _AUDIBLE)
    return (int(loud[0]) * 2, int(loud[-1]) * 2 + 2) if len(loud) else (0, len(pcm))


def _trimmed(pcm: bytes) -> bytes:
    """Without the silence before, but for 20 ms; the pause after belongs to the sentence."""
    return pcm[max(0, _audible(pcm)[0] - FORMAT.rate * LEAD_MS // 1000 * 2) :]
