"""ElevenLabs' multi-context speech socket as it travels: address, messages, word times, and what its errors mean.

Pure: no sockets, no time. Source: the vendor's AsyncAPI description of `multi-stream-input`, Python package 2.78.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

import msgspec

from providers.base import AudioFormat, Encoding, TimedWord
from providers.errors import ProviderError, RateLimited, Refused, Unavailable
from providers.timing import spread_words
from wire.config import ElevenLabsVoice

VENDOR = "elevenlabs"
CODE = "TTS_ERROR"
MAX_CONTEXTS = 5
"""Open contexts per socket; the sixth makes the vendor close the socket with all of them."""
INACTIVITY_S = 180
"""The longest silence of ours that the vendor can be asked to bear."""

_PCM_RATES = (8000, 16000, 22050, 24000, 44100)


# --- what we send ---


def output_for(preferred: AudioFormat) -> AudioFormat:
    """The format of the vendor nearest to `preferred`: 8 kHz µ-law as it is, else 16-bit PCM not below its rate."""
    if preferred.encoding is Encoding.MULAW and preferred.rate == 8000:
        return preferred
    rate = next((rate for rate in _PCM_RATES if rate >= preferred.rate), _PCM_RATES[-1])
    return AudioFormat(Encoding.PCM16, rate)


def speech_url(ws_url: str, voice: ElevenLabsVoice, output: AudioFormat) -> str:
    """The socket of one voice, model and format."""
    query = {
        "model_id": voice.model,
        "output_format": f"{'ulaw' if output.encoding is Encoding.MULAW else 'pcm'}_{output.rate}",
        # We send whole clauses: each is spoken at once instead of waiting for more characters.
        "auto_mode": "true",
        "sync_alignment": "true",
        "inactivity_timeout": str(INACTIVITY_S),
    }
    # Other models refuse the parameter.
    if voice.language and voice.model.endswith("_v2_5"):
        query["language_code"] = voice.language.partition("-")[0].lower()
    path = f"/v1/text-to-speech/{quote(voice.voice_id, safe='')}/multi-stream-input"
    return f"{ws_url.rstrip('/')}{path}?{urlencode(query)}"


class _VoiceSettings(msgspec.Struct):
    stability: float
    similarity_boost: float
    style: float
    use_speaker_boost: bool
    speed: float


class _ClientMessage(msgspec.Struct, omit_defaults=True):
    context_id: str | None = None
    text: str | None = None
    voice_settings: _VoiceSettings | None = None
    flush: bool = False
    close_context: bool = False


def begin_context(context: str, voice: ElevenLabsVoice) -> str:
    """Opens a context; the only message of it that may carry settings. Ranges are the vendor's."""
    settings = _VoiceSettings(
        stability=_clamp(voice.stability, 0.0, 1.0),
        similarity_boost=_clamp(voice.similarity_boost, 0.0, 1.0),
        style=_clamp(voice.style, 0.0, 1.0),
        use_speaker_boost=voice.use_speaker_boost,
        speed=_clamp(voice.speed, 0.7, 1.2),
    )
    return _encode(_ClientMessage(context, " ", settings))


def speak(context: str, text: str) -> str:
    """Text to be spoken now."""
    return _encode(_ClientMessage(context, f"{text.rstrip()} ", flush=True))


def close_context(context: str) -> str:
    """No more text: what was flushed is still spoken, then `isFinal` comes."""
    return _encode(_ClientMessage(context, close_context=True))


def keep_alive(context: str | None) -> str:
    """Resets the inactivity clock of a context that has had text, or of the socket.

    Only contexts that exist may be named: naming an unknown one creates it.
    """
    return _encode(_ClientMessage(context, ""))


def _encode(message: _ClientMessage) -> str:
    return msgspec.json.encode(message).decode()


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


# --- what we get ---


class Alignment(msgspec.Struct):
    """When each character of the sent text sounds (ms). The vendor's pages and servers spell the fields differently."""

    chars: list[str] | None = None
    charStartTimesMs: list[float] | None = None  # noqa: N815
    charsStartTimesMs: list[float] | None = None  # noqa: N815
    charDurationsMs: list[float] | None = None  # noqa: N815
    charsDurationsMs: list[float] | None = None  # noqa: N815

    def spans(self) -> list[tuple[str, float, float]]:
        """(character, start, end); empty when the lists do not match."""
        chars = self.chars or []
        starts = self.charStartTimesMs or self.charsStartTimesMs or []
        durations = self.charDurationsMs or self.charsDurationsMs or []
        if not len(chars) == len(starts) == len(durations):
            return []
        return [(char, start, start + length) for char, start, length in zip(chars, starts, durations, strict=True)]


class ServerMessage(msgspec.Struct):
    """Anything the vendor sends; `audio` arrives decoded from its base64. Unknown fields are ignored."""

    audio: bytes | None = None
    contextId: str | None = None  # noqa: N815
    context_id: str | None = None
    isFinal: bool | None = None  # noqa: N815
    is_final: bool | None = None
    alignment: Alignment | None = None
    error: str | None = None
    message: str | None = None

    @property
    def context(self) -> str | None:
        """The context it belongs to."""
        return self.contextId or self.context_id

    @property
    def final(self) -> bool:
        """The context is closed: nothing more comes of it."""
        return bool(self.isFinal or self.is_final)


read_message = msgspec.json.Decoder(ServerMessage).decode
"""Parse a frame; raises msgspec.DecodeError."""

_PATIENCE = ("too_many_concurrent", "system_busy", "rate_limit", "rate limit", "concurrent requests")
_REFUSALS = (
    "voice_not_found", "voice_id_does_not_exist", "does not exist", "invalid_api_key", "api key", "missing_permissions",
    "quota_exceeded", "quota", "max_character_limit", "model_not_found", "model_id", "unsupported", "invalid_",
    "output_format", "subscription", "payment", "voice_settings", "unauthorized", "forbidden",
)  # fmt: skip


def failure(name: str, detail: str = "") -> ProviderError:
    """The error behind an error frame (its name and text) or a close reason.

    `max_active_conversations` (a sixth context) and inactivity end up as Unavailable: a fresh socket cures them.
    """
    told = f"{name} {detail}".lower()
    message = f"{VENDOR}: {name or 'connection closed'}"[:200]
    if any(mark in told for mark in _PATIENCE):
        return RateLimited(message, vendor=VENDOR, code=CODE)
    if any(mark in told for mark in _REFUSALS):
        return Refused(message, vendor=VENDOR, code=CODE)
    return Unavailable(message, vendor=VENDOR, code=CODE)


def unavailable(what: str) -> Unavailable:
    """The vendor fails to do its part."""
    return Unavailable(f"{VENDOR} {what}", vendor=VENDOR, code=CODE)


# --- word times ---

_ROUNDING_MS = 50


class WordTimes:
    """Characters with times become words with times, in ms from the start of the utterance.

    The vendor's description says that times count from the chunk they came with, clients in the field also meet times
    that count from the context's start. A chunk that starts before the last one ended must be of the first kind: it
    begins where the audio received before it ended.
    """

    def __init__(self) -> None:
        self._expected: list[str] = []
        self._word = ""
        self._start = 0.0
        self._word_end = 0.0
        self._end = 0.0
        """Where the characters seen so far end."""
        self._aligned = False
        self._count = 0
        self._waiting: list[TimedWord] = []

    def expect(self, text: str) -> None:
        """Text that was sent; tells where a word ends when the vendor leaves out the space between two chunks."""
        self._expected += text.split()

    def feed(self, alignment: Alignment | None, before_ms: float, after_ms: float) -> tuple[TimedWord, ...]:
        """Take a chunk's alignment (None: it had none), the audio received before it and with it.

        Gives the words whose beginning has been received by now; the alignment may run ahead of its audio.
        """
        spans = alignment.spans() if alignment else []
        if spans:
            self._aligned = True
            tolerance = min(_ROUNDING_MS, self._end / 2)
            relative = spans[0][1] < self._end - tolerance
            offset = max(before_ms, self._end) if relative else 0.0
            for char, start, end in spans:
                self._take(char, start + offset, end + offset)
            if self._count < len(self._expected) and self._word == self._expected[self._count]:
                self._close_word()
        due = [word for word in self._waiting if word.start_ms < after_ms]
        del self._waiting[: len(due)]
        return tuple(due)

    def finish(self, total_ms: float) -> tuple[TimedWord, ...]:
        """The words that are left at the end of the audio, none of them reaching beyond it.

        A vendor that never sent an alignment has its words spread over the audio.
        """
        total = round(total_ms)
        if not self._aligned:
            return spread_words(" ".join(self._expected), 0, total)
        self._close_word()
        left, self._waiting = self._waiting, []
        return tuple(TimedWord(word.word, min(word.start_ms, total), min(word.end_ms, total)) for word in left)

    def _take(self, char: str, start: float, end: float) -> None:
        if char.isspace():
            self._close_word()
        else:
            if not self._word:
                self._start = start
            self._word += char
            self._word_end = end
        self._end = max(self._end, end)

    def _close_word(self) -> None:
        if self._word:
            self._waiting.append(TimedWord(self._word, round(self._start), round(self._word_end)))
            self._count += 1
            self._word = ""
