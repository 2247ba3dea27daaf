"""The words of the data channel, both ways (protocol: docs/browser.md). Pure.

A page sees much of what an agent sees, but not all: no prompt, no history, no vendor's error, and the end of the
session in a form that every published client acts on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import msgspec

from wire.commands import RawConfig
from wire.events import (
    AudioMetrics,
    BotFinished,
    BotInterrupted,
    BotSpeaking,
    BotWord,
    CallEnded,
    CallEvent,
    EagerTurn,
    LlmError,
    LlmToolCall,
    MessageConfirmed,
    SessionIdleWarning,
    SessionTimeout,
    SpeechEnded,
    SpeechStarted,
    ToolCallRequest,
    TurnContinued,
    TurnEnd,
    TurnPause,
    TurnResumed,
    UserMessage,
    UserSpeaking,
)
from wire.page_events import LlmToolOutcome, SessionEnded, SessionFrame, SessionOver, ToolOutcome

MAX_FRAME_OUT: Final = 48 * 1024
"""Bytes."""
MAX_TEXT: Final = 8000
"""Characters of an injected text."""
_LONG_TEXT: Final = 8000
"""What is left of a text that would not fit."""
LLM_FAILED: Final = "The assistant could not answer."


# --- from the page ---


@dataclass(frozen=True, slots=True)
class Mute:
    """Listen to the caller no more, or again."""

    on: bool


@dataclass(frozen=True, slots=True)
class Configure:
    """Other settings for this session; unread."""

    config: RawConfig


@dataclass(frozen=True, slots=True)
class InjectText:
    """A turn of the caller, typed."""

    text: str


@dataclass(frozen=True, slots=True)
class PutContext:
    """A block of what the model is told about the page; None removes it."""

    key: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Ping:
    """The page is there; `asks` for an answer."""

    asks: bool


PageCommand = Mute | Configure | InjectText | PutContext | Ping

_objects: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_strings: Final = msgspec.json.Decoder(str)


def read_frame(frame: str | bytes) -> PageCommand | None:
    """What the page wants; None for what means nothing to us."""
    if frame in ("ping", b"ping"):
        return Ping(asks=False)
    try:
        # As text: what is inside is read later, and must be some then.
        keys = _objects.decode(frame.decode() if isinstance(frame, bytes) else frame)
        action = _strings.decode(keys.pop("action", b'""'))
        return _command(action, keys)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _command(action: str, keys: RawConfig) -> PageCommand | None:
    """Raises DecodeError for a field of the wrong type."""
    match action:
        case "ping":
            return Ping(asks=True)
        case "mute" | "unmute":
            return Mute(on=action == "mute")
        case "configure":
            return Configure(keys)
        case "inject_text":
            text = _strings.decode(keys.get("text", b'""')).strip()
            return InjectText(text[:MAX_TEXT]) if text else None
        case "set_context":
            key = _strings.decode(keys.get("key", b'""')).strip()
            return PutContext(key, _text(keys.get("value"))) if key else None
        case _:
            return None


def _text(value: msgspec.Raw | None) -> str | None:
    """A string as it is, anything else as JSON; None for nothing."""
    if value is None or bytes(value) == b"null":
        return None
    decoded: object = msgspec.json.decode(value)
    return decoded if isinstance(decoded, str) else bytes(value).decode()


# --- to the page ---


class Weight(IntEnum):
    """What is given up first when a page does not keep up."""

    METRICS = 0
    PASSING = 1
    """Overtaken by what follows: interim text, single words."""
    FACT = 2


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One frame, ready to be sent."""

    text: str
    weight: Weight = Weight.FACT


_FORWARDED: Final = (
    SpeechStarted,
    SpeechEnded,
    UserSpeaking,
    UserMessage,
    TurnPause,
    TurnResumed,
    TurnEnd,
    EagerTurn,
    TurnContinued,
    BotSpeaking,
    BotWord,
    BotFinished,
    BotInterrupted,
    MessageConfirmed,
    AudioMetrics,
    LlmToolCall,
    LlmToolOutcome,
    SessionIdleWarning,
)
_WEIGHTS: Final[dict[type[CallEvent], Weight]] = {
    AudioMetrics: Weight.METRICS,
    UserSpeaking: Weight.PASSING,
    BotWord: Weight.PASSING,
}
_LIMITS: Final = frozenset({"idle_timeout", "max_duration"})
_encoder: Final = msgspec.json.Encoder()


def frame(message: SessionFrame) -> Outgoing:
    """A frame of ours."""
    return Outgoing(_encoder.encode(message).decode())


def frames_of(event: CallEvent) -> list[Outgoing]:
    """What a page is told of a fact of its call."""
    match event:
        case CallEnded(call_id=call_id, reason=reason):
            nudge = reason if reason in _LIMITS else "hangup"
            return [
                frame(SessionEnded(call_id=call_id, session_id=call_id, reason=reason)),
                frame(SessionOver(call_id=call_id, session_id=call_id, reason=nudge)),
            ]
        case SessionTimeout():
            # Pages fall silent at once when they see it; the goodbye, if there is one, is to be heard first.
            return []
        case LlmError():
            return [_encoded(LlmError(error=LLM_FAILED, code=event.code, call_id=event.call_id))]
        case _ if isinstance(event, _FORWARDED):
            return [_encoded(event)]
        case _:
            return []


def _encoded(event: CallEvent) -> Outgoing:
    data = _encoder.encode(event)
    if len(data) > MAX_FRAME_OUT:
        data = _encoder.encode(_shortened(event))
    return Outgoing(data.decode(), _WEIGHTS.get(type(event), Weight.FACT))


def _shortened(event: CallEvent) -> CallEvent:
    """The same fact in fewer words."""
    if isinstance(event, LlmToolCall):
        calls = [ToolCallRequest(call.id, call.name, truncated(len(call.arguments))) for call in event.tool_calls]
        return msgspec.structs.replace(event, tool_calls=calls)
    if isinstance(event, LlmToolOutcome):
        result = truncated(len(event.result))
        return msgspec.structs.replace(event, result=result, results=[ToolOutcome(event.tool_call_id, result)])
    text = getattr(event, "text", None)
    if isinstance(text, str):
        return msgspec.structs.replace(event, text=text[:_LONG_TEXT])
    return event


def truncated(size: int) -> str:
    """Stands for `size` bytes that would not fit; JSON."""
    return f'{{"truncated":true,"bytes":{size}}}'
