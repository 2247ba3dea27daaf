"""What Deepgram Nova (`/v1/listen`) is asked for, and what it says. No I/O.

Source: Deepgram's AsyncAPI description of `/v1/listen`, its language pages, and the types of its Python SDK 7.17.
"""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec

from providers.base import AudioFormat, Encoding
from providers.deepgram.messages import MessageReader
from wire.config import NovaStt

VENDOR = "deepgram-nova"
FINALIZE = '{"type":"Finalize"}'
KEEP_ALIVE = '{"type":"KeepAlive"}'

MIN_UTTERANCE_END_MS = 1000
MULTILINGUAL = "multi"

_ENCODINGS = {Encoding.MULAW: "mulaw", Encoding.PCM16: "linear16"}
_REGIONAL = {
    tag.lower(): tag
    for tag in (
        *("da-DK", "de-CH", "en-AU", "en-GB", "en-IN", "en-NZ", "en-US", "es-419", "fr-CA", "ko-KR", "nl-BE"),
        *("pt-BR", "pt-PT", "sv-SE", "th-TH", "zh-CN", "zh-HK", "zh-Hans", "zh-Hant", "zh-TW"),
    )
}
"""The regions Deepgram tells apart; it refuses a call that names any other."""
_OTHER_NAMES = {"nb": "no", "nn": "no"}


# --- what is asked ---


def listen_url(ws_url: str, config: NovaStt, audio: AudioFormat) -> str:
    """The address of a stream of `audio`; `ws_url` is an origin such as `wss://api.deepgram.com`."""
    return f"{ws_url.rstrip('/')}/v1/listen?{urlencode(query(config, audio))}"


def query(config: NovaStt, audio: AudioFormat) -> list[tuple[str, str]]:
    """The query parameters. Deepgram answers 400 to combinations it does not know, so none is sent."""
    parameters = [
        ("model", config.model),
        ("language", language_tag(config.language)),
        ("encoding", _ENCODINGS[audio.encoding]),
        ("sample_rate", str(audio.rate)),
        ("interim_results", _flag(config.interim_results)),
        ("smart_format", _flag(config.smart_format)),
        ("punctuate", _flag(config.punctuate)),
        ("profanity_filter", _flag(config.profanity_filter)),
        ("vad_events", _flag(config.use_native_vad)),
        ("endpointing", str(config.endpointing_ms) if config.endpointing_ms > 0 else "false"),
    ]
    if config.interim_results:
        # Deepgram finds the end of an utterance in its interim results, so one is not to be had without the other.
        parameters.append(("utterance_end_ms", str(max(config.utterance_end_ms, MIN_UTTERANCE_END_MS))))
    # Nova-3 takes keyterms and older models take keywords; each refuses the other's.
    name = "keyterm" if config.model.startswith("nova-3") else "keywords"
    terms = (term.strip() for term in (*config.keyterms, *config.keywords))
    return parameters + [(name, term) for term in dict.fromkeys(terms) if term]


def language_tag(language: str) -> str:
    """The nearest language that Deepgram has: `es-419` for `es-AR`, `fr` for `fr-FR`."""
    tag = language.strip().replace("_", "-").lower()
    primary, _, region = tag.partition("-")
    if tag in _REGIONAL:
        return _REGIONAL[tag]
    if primary == "es" and region not in ("", "es"):
        return "es-419"
    return _OTHER_NAMES.get(primary, primary)


def _flag(value: bool) -> str:
    return "true" if value else "false"


# --- what is said ---


class NovaWord(msgspec.Struct, frozen=True):
    """A word; seconds since the connection's first audio."""

    word: str
    start: float = 0.0
    end: float = 0.0
    punctuated_word: str | None = None

    @property
    def text(self) -> str:
        """As it is written."""
        return self.punctuated_word or self.word

    @property
    def middle(self) -> float:
        """A second that is within the word even when its edges are off by a little."""
        return (self.start + self.end) / 2


class Alternative(msgspec.Struct, frozen=True):
    """A reading of a segment; `confidence` 0..1."""

    transcript: str = ""
    confidence: float = 0.0
    words: tuple[NovaWord, ...] = ()
    languages: tuple[str, ...] | None = None


class Channel(msgspec.Struct, frozen=True):
    """The only one there is."""

    alternatives: tuple[Alternative, ...] = ()


class Results(msgspec.Struct, frozen=True):
    """The words of the current segment, which begins at second `start` and is `duration` seconds long by now.

    With `is_final` the segment is over and a next one begins where it ended. Flags may be null for false.
    """

    start: float = 0.0
    duration: float = 0.0
    is_final: bool | None = None
    speech_final: bool | None = None
    from_finalize: bool | None = None
    channel: Channel = Channel()

    @property
    def best(self) -> Alternative:
        """The reading to go by."""
        return self.channel.alternatives[0] if self.channel.alternatives else Alternative()

    @property
    def end(self) -> float:
        """The second up to which audio went into this."""
        return self.start + self.duration


class UtteranceEnd(msgspec.Struct, frozen=True):
    """No word followed for `utterance_end_ms` after the one that ended at second `last_word_end`."""

    last_word_end: float = 0.0


class NovaError(msgspec.Struct, frozen=True):
    """Fatal: the socket closes after it."""

    variant: str = ""
    description: str = ""
    message: str = ""


NovaMessage = Results | UtteranceEnd | NovaError

_MESSAGES: MessageReader[NovaMessage] = MessageReader(
    (("Results", Results), ("UtteranceEnd", UtteranceEnd), ("Error", NovaError))
)


def parse(message: str | bytes) -> NovaMessage | None:
    """Read one message; None for a type that is new to us or of no use. Raises Unreadable."""
    return _MESSAGES.read(message)
