"""The three things a call asks of a vendor, as protocols, and the facts that come back.

One `SpeechToText` and one `TextToSpeech` object serve one call each; `LanguageModel` objects are shared by all calls.
Providers never convert audio: they say which format they take or give, and the pipeline converts when it must.
All failures are `providers.errors.ProviderError`. Nothing here blocks the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Protocol

from wire.config import LlmConfig, Tool


class Encoding(StrEnum):
    """How samples are written. Always mono, raw, headerless."""

    MULAW = "mulaw"
    PCM16 = "pcm16"


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Encoding and sample rate (Hz)."""

    encoding: Encoding
    rate: int

    @property
    def bytes_per_second(self) -> int:
        """Bytes of one second of audio."""
        return self.rate * (1 if self.encoding is Encoding.MULAW else 2)

    def duration_ms(self, size: int) -> float:
        """How long `size` bytes play, in milliseconds."""
        return size * 1000 / self.bytes_per_second


MULAW_8K = AudioFormat(Encoding.MULAW, 8000)
"""What a telephone carries."""
PCM_8K = AudioFormat(Encoding.PCM16, 8000)
PCM_16K = AudioFormat(Encoding.PCM16, 16000)


# --- speech to text ---


@dataclass(frozen=True, slots=True)
class Transcript:
    """Words of a recogniser that leaves turn taking to us.

    `text` is the current segment only (the words since the last final one). A final segment never changes again.
    `speech_final` means the recogniser itself believes that the speaker paused.
    """

    text: str
    is_final: bool
    confidence: float = 1.0
    language: str | None = None
    speech_final: bool = False


class TurnMoment(Enum):
    """What a recogniser with native turns reports (Deepgram Flux)."""

    START = auto()
    UPDATE = auto()
    EAGER_END = auto()
    RESUMED = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class NativeTurn:
    """One report of a recogniser with native turns. `text` is the whole turn so far.

    `probability` is the vendor's end-of-turn confidence, `confidence` the mean of its word confidences.
    """

    moment: TurnMoment
    text: str
    turn_index: int
    probability: float = 0.0
    confidence: float = 1.0
    language: str | None = None


@dataclass(frozen=True, slots=True)
class SttReconnected:
    """The recogniser's connection broke and is back; `replayed_ms` of audio were sent again."""

    replayed_ms: int


SttEvent = Transcript | NativeTurn | SttReconnected


class SpeechToText(Protocol):
    """A live recogniser of one call."""

    input: AudioFormat
    """The audio that `feed` takes."""
    native_turns: bool
    """True: events are `NativeTurn`. False: events are `Transcript`."""

    async def start(self) -> None:
        """Connect. Raises ProviderError when that fails within the connect deadline."""
        ...

    def feed(self, audio: bytes) -> None:
        """Take audio in `input` format, any length. Never blocks; a bounded backlog drops its oldest audio."""
        ...

    def finalize(self) -> None:
        """Ask for the final text of what was said so far, now. No-op where the vendor has no such request."""
        ...

    def events(self) -> AsyncIterator[SttEvent]:
        """All events in order until `aclose`. Raises ProviderError when the recogniser is lost for good."""
        ...

    async def aclose(self) -> None:
        """Release everything within 2 s. Idempotent."""
        ...


# --- text to speech ---


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word (with its punctuation) and when it sounds, in ms from the start of its utterance."""

    word: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class SpeechChunk:
    """A piece of speech in the engine's output format, and the words that became known with it."""

    audio: bytes
    words: tuple[TimedWord, ...] = ()


class SpeechStream(Protocol):
    """The speech of one utterance."""

    async def push(self, text: str) -> None:
        """Speak `text` (a sentence or clause, ends with a space when more follows). Raises ProviderError."""
        ...

    async def finish(self) -> None:
        """No more text will come. Idempotent."""
        ...

    def chunks(self) -> AsyncIterator[SpeechChunk]:
        """The audio in order; ends when all text has been spoken. Raises ProviderError."""
        ...

    async def cancel(self) -> None:
        """Stop now and forget the rest. Idempotent; late audio of the vendor is dropped here."""
        ...


class TextToSpeech(Protocol):
    """The voice of one call."""

    output: AudioFormat
    """The audio that streams of this engine give."""

    async def warm(self) -> None:
        """Open what makes the first utterance fast. Failure is not an error yet: `open` will tell."""
        ...

    def open(self) -> SpeechStream:
        """Begin an utterance."""
        ...

    async def aclose(self) -> None:
        """Release everything within 2 s. Idempotent."""
        ...


# --- language models ---


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function the model wants called; `arguments` is a JSON text (`{}` when the model sent none)."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of the conversation as a model sees it. `tool_calls` only on assistant entries,
    `tool_call_id` only on tool entries."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """A request for one answer."""

    config: LlmConfig
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    force_text: bool = False
    """True: the model must not ask for tools."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """All functions the model asked for in this answer; comes once, after the text."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, when the vendor tells them; comes last."""

    prompt_tokens: int
    completion_tokens: int


LlmEvent = TextDelta | ToolCalls | Usage


class LanguageModel(Protocol):
    """A vendor of language models; shared by all calls."""

    def generate(self, generation: Generation) -> AsyncIterator[LlmEvent]:
        """Stream one answer. Closing the iterator cancels the request. Raises ProviderError."""
        ...

    async def warm(self) -> None:
        """Open what makes the first token fast. Never raises."""
        ...

    async def aclose(self) -> None:
        """Release everything. Idempotent."""
        ...


# --- hearing ---


@dataclass(frozen=True, slots=True)
class VadFrame:
    """Voice activity of one frame. `end_ms` is audio time since the stream began, `probability` 0..1."""

    end_ms: int
    probability: float
    energy_db: float


class VoiceActivity(Protocol):
    """Voice activity of one call; all calls share the model behind it."""

    def feed(self, pcm: bytes) -> None:
        """Take 16-bit mono audio of any length, at the rate the stream was opened with. Results come by callback."""
        ...

    def close(self) -> None:
        """Stop; no callback comes after this. Idempotent."""
        ...


class EndOfTurnModel(Protocol):
    """Judges from the sound of the last words whether the speaker has finished."""

    async def probability(self, pcm: bytes, rate: int) -> float:
        """0..1 for 16-bit mono audio of the turn (the last 8 s count). Off the event loop. Raises ProviderError."""
        ...
