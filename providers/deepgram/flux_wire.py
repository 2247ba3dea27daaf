"""What Deepgram Flux (`/v2/listen`) is asked for, and what it says. No I/O.

Source: Deepgram's AsyncAPI description of `/v2/listen` and the types of its Python SDK 7.17.
"""

from __future__ import annotations

from enum import StrEnum
from urllib.parse import urlencode

import msgspec

from providers.base import AudioFormat, Encoding
from providers.deepgram.messages import MessageReader
from wire.config import FluxStt

VENDOR = "deepgram-flux"
FORCE_END_TURN = '{"type":"ForceEndTurn"}'

EOT_THRESHOLD = (0.5, 1.0)
EAGER_EOT_THRESHOLD = (0.3, 0.9)
EOT_TIMEOUT_MS = (500, 60_000)

_ENCODINGS = {Encoding.MULAW: "mulaw", Encoding.PCM16: "linear16"}


# --- what is asked ---


def listen_url(ws_url: str, config: FluxStt, audio: AudioFormat) -> str:
    """The address of a stream of `audio`; `ws_url` is an origin such as `wss://api.deepgram.com`."""
    return f"{ws_url.rstrip('/')}/v2/listen?{urlencode(query(config, audio))}"


def query(config: FluxStt, audio: AudioFormat) -> list[tuple[str, str]]:
    """The query parameters. Flux answers 400 to a value out of range, so each is moved into its range first."""
    eot = _clamp(config.eot_threshold, EOT_THRESHOLD)
    parameters = [
        ("model", "flux-general-en" if is_english(config) else "flux-general-multi"),
        ("encoding", _ENCODINGS[audio.encoding]),
        ("sample_rate", str(audio.rate)),
        ("eot_threshold", f"{eot:g}"),
    ]
    if config.eager_eot_threshold is not None:
        eager = min(_clamp(config.eager_eot_threshold, EAGER_EOT_THRESHOLD), eot)
        parameters.append(("eager_eot_threshold", f"{eager:g}"))
    parameters.append(("eot_timeout_ms", str(eot_timeout_ms(config))))
    parameters += [("language_hint", hint) for hint in _hints(config)]
    parameters += [("keyterm", term.strip()) for term in config.keyterms if term.strip()]
    return parameters


def eot_timeout_ms(config: FluxStt) -> int:
    """Silence after which Flux ends a turn whatever it believes, as sent."""
    return round(_clamp(config.eot_timeout_ms, EOT_TIMEOUT_MS))


def is_english(config: FluxStt) -> bool:
    """Whether the English model serves: it is the faster one, and takes no hints."""
    wanted = (config.language, config.language_hint or "en")
    return all(_primary(language) == "en" for language in wanted)


def _hints(config: FluxStt) -> list[str]:
    """What the multilingual model should expect; nothing means that it finds out by itself."""
    if is_english(config):
        return []
    wanted = (config.language, config.language_hint or "")
    return list(dict.fromkeys(tag for tag in map(_primary, wanted) if tag not in ("", "multi")))


def _primary(language: str) -> str:
    """`es` of `es-AR`: Flux knows languages, not regions."""
    return language.strip().replace("_", "-").split("-")[0].lower()


def _clamp(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])


# --- what is said ---


class TurnEvent(StrEnum):
    """`event` of a TurnInfo. Deepgram keeps the right to add more."""

    UPDATE = "Update"
    START = "StartOfTurn"
    EAGER_END = "EagerEndOfTurn"
    RESUMED = "TurnResumed"
    END = "EndOfTurn"


class Word(msgspec.Struct, frozen=True):
    """A word of the turn; seconds since the connection's first audio, which older deployments leave out."""

    word: str
    confidence: float = 1.0
    start: float | None = None
    end: float | None = None


class TurnInfo(msgspec.Struct, frozen=True):
    """The state of the current turn. `audio_window_end`: seconds of audio that Flux has dealt with."""

    event: str
    turn_index: int = 0
    audio_window_end: float = 0.0
    transcript: str = ""
    words: tuple[Word, ...] = ()
    end_of_turn_confidence: float = 0.0
    languages: tuple[str, ...] | None = None

    @property
    def confidence(self) -> float:
        """Mean confidence of the words, 0..1; 1 when there are none."""
        return sum(word.confidence for word in self.words) / len(self.words) if self.words else 1.0


class Connected(msgspec.Struct, frozen=True):
    """The first message of a connection."""

    request_id: str = ""


class FluxWarning(msgspec.Struct, frozen=True):
    """Something was ignored; the stream goes on."""

    code: str = ""
    description: str = ""


class FluxError(msgspec.Struct, frozen=True):
    """Fatal: the socket closes after it."""

    code: str = ""
    description: str = ""


FluxMessage = TurnInfo | Connected | FluxWarning | FluxError

_MESSAGES: MessageReader[FluxMessage] = MessageReader(
    (("TurnInfo", TurnInfo), ("Connected", Connected), ("Warning", FluxWarning), ("Error", FluxError))
)


def parse(message: str | bytes) -> FluxMessage | None:
    """Read one message; None for a type that is new to us. Raises Unreadable."""
    return _MESSAGES.read(message)
