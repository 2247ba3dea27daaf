"""Events of calls that the gateway sends, one type each, in the wire's own words (protocol §3).

`msgspec.json.encode(event)` is the frame. Fields left `UNSET` are not sent. Times named `*_ms` are integer
milliseconds; `ts`, `timestamp`, `started_at`, `ended_at` are epoch seconds. `agent_id`, `call_id`, `session_id`, `ts`
and `seq` are stamped by the call's event queue, not by whoever states the fact. What is not about a call is in
`wire.link_events`.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from wire.recording import WavSound

Maybe = UnsetType
"""Marks a field that is not sent when it is `UNSET`."""


class Event(msgspec.Struct, kw_only=True, tag_field="event"):
    """Anything the gateway sends to an agent's socket."""


class CallEvent(Event, kw_only=True):
    """A fact of one call."""

    agent_id: str = ""
    call_id: str = ""
    session_id: str = ""
    ts: float = 0.0
    seq: int = 0


class CallStarted(CallEvent, tag="call.started", kw_only=True):
    """Media is up. First frame of a call (protocol §3.1)."""

    from_: str = msgspec.field(name="from")
    to: str
    direction: str
    transport: str
    metadata: dict[str, msgspec.Raw]
    language: str
    resumed: bool | Maybe = UNSET


class CallMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One entry of the call's record, OpenAI-shaped."""

    role: str
    content: str | None
    tool_calls: list[ToolCallRecord] | Maybe = UNSET
    tool_call_id: str | Maybe = UNSET


class ToolCallFunction(msgspec.Struct):
    """Name and JSON text."""

    name: str
    arguments: str


class ToolCallRecord(msgspec.Struct):
    """A tool call inside an assistant entry of the record."""

    id: str
    function: ToolCallFunction
    type: str = "function"


class CallDialing(CallEvent, tag="call.dialing", kw_only=True):
    """The carrier has taken a call that the agent makes. First frame of that call; no media yet."""

    from_: str = msgspec.field(name="from")
    to: str


class CallEnded(CallEvent, tag="call.ended", kw_only=True):
    """Last frame of a call. `error` and `code` only where a dial failed, for whoever wants to know why."""

    reason: str
    from_: str = msgspec.field(name="from")
    to: str
    direction: str
    metadata: dict[str, msgspec.Raw]
    messages: list[CallMessage]
    duration_seconds: float
    started_at: float
    ended_at: float
    error: str | Maybe = UNSET
    code: str | Maybe = UNSET


class CallRinging(CallEvent, tag="call.ringing", kw_only=True):
    """Somebody calls, on a channel that wants to be asked first; nothing is answered yet."""

    from_: str = msgspec.field(name="from")
    to: str
    direction: str


class CallRejected(CallEvent, tag="call.rejected", kw_only=True):
    """The ringing call was refused as the agent wished: `busy` or `rejected`. Nothing follows."""

    reason: str


class CallUpdated(CallEvent, tag="call.updated", kw_only=True):
    """The caller chose another language for the session; `language` in its base form."""

    language: str


class CallHeld(CallEvent, tag="call.held", kw_only=True):
    """The caller hears music and is not listened to."""


class CallUnheld(CallEvent, tag="call.unheld", kw_only=True):
    """The hold is over; what was said meanwhile comes along."""

    muted_transcript: str | None


class CallMuted(CallEvent, tag="call.muted", kw_only=True):
    """The caller is not listened to."""


class CallUnmuted(CallEvent, tag="call.unmuted", kw_only=True):
    """The caller is listened to again; what was said meanwhile, or None."""

    muted_transcript: str | None


class CallForwarded(CallEvent, tag="call.forwarded", kw_only=True):
    """The carrier was told to connect the caller elsewhere."""

    to: str


class CallDtmfSent(CallEvent, tag="call.dtmf_sent", kw_only=True):
    """Tones were played."""

    digits: str


class CallDtmfReceived(CallEvent, tag="call.dtmf_received", kw_only=True):
    """The caller pressed a key; `digits` are all so far."""

    digit: str
    digits: str


class SpeechStarted(CallEvent, tag="speech.started", kw_only=True):
    """The user began to speak."""

    turn_id: int
    confidence: float
    timestamp: float


class SpeechEnded(CallEvent, tag="speech.ended", kw_only=True):
    """The user stopped; `duration_ms` is speech only."""

    turn_id: int
    duration_ms: int
    timestamp: float


class UserSpeaking(CallEvent, tag="user.speaking", kw_only=True):
    """Interim text of the whole turn so far."""

    message_id: str
    turn_id: int
    text: str
    confidence: float
    confirmed_text: str | Maybe = UNSET


class UserMessage(CallEvent, tag="user.message", kw_only=True):
    """Final text of the turn so far; exactly one per id."""

    message_id: str
    turn_id: int
    text: str
    confidence: float
    language: str | Maybe = UNSET
    lag_ms: int | Maybe = UNSET


class EagerTurn(CallEvent, tag="eager.turn", kw_only=True):
    """The turn is probably over; replies may be prepared."""

    turn_id: int
    message_id: str
    text: str
    probability: float
    latency_ms: int


class TurnPause(CallEvent, tag="turn.pause", kw_only=True):
    """Silence, but the user has not finished."""

    turn_id: int
    probability: float
    latency_ms: int


class TurnResumed(CallEvent, tag="turn.resumed", kw_only=True):
    """The user goes on after a pause."""

    turn_id: int
    timestamp: float


class TurnEnd(CallEvent, tag="turn.end", kw_only=True):
    """The turn is over; `latency_ms` counts from the end of the user's speech."""

    turn_id: int
    message_id: str
    text: str
    probability: float
    latency_ms: int
    source: str | Maybe = UNSET


class TurnContinued(CallEvent, tag="turn.continued", kw_only=True):
    """The user went on; every reply to this turn so far is obsolete."""

    turn_id: int
    timestamp: float


class BotSpeaking(CallEvent, tag="bot.speaking", kw_only=True):
    """First audio of a message leaves; `text` is empty for streams."""

    message_id: str
    text: str


class BotWord(CallEvent, tag="bot.word", kw_only=True):
    """The caller heard this word; times in seconds from the start of the message."""

    message_id: str
    word: str
    word_index: int
    start_time: float
    end_time: float


class BotFinished(CallEvent, tag="bot.finished", kw_only=True):
    """The caller heard all of it."""

    message_id: str
    text: str
    duration_ms: int


class BotInterrupted(CallEvent, tag="bot.interrupted", kw_only=True):
    """The message stopped early; `reason` is continuation, user_spoke or cancelled."""

    message_id: str
    played_ms: int
    words_spoken: int
    reason: str
    last_word: str | Maybe = UNSET


class MessageConfirmed(CallEvent, tag="message.confirmed", kw_only=True):
    """This text is now part of the record."""

    message_id: str
    text: str


class ReplyRejected(CallEvent, tag="reply.rejected", kw_only=True):
    """The reply answers something that is no longer the question."""

    message_id: str
    in_reply_to: str
    expected_reply_to: str
    reason: str


class AudioMetrics(CallEvent, tag="audio.metrics", kw_only=True):
    """How loud one side is; `energy_db` -60..0, `rms` and `peak` 0..1."""

    source: str
    energy_db: float
    rms: float
    peak: float
    is_speech: bool
    vad_prob: float
    timestamp: float


class ToolCallRequest(msgspec.Struct):
    """A function to run; `arguments` is a JSON text."""

    id: str
    name: str
    arguments: str


class LlmToolCall(CallEvent, tag="llm.tool_call", kw_only=True):
    """Run these; `msg_id` is unique for ever."""

    msg_id: str
    tool_calls: list[ToolCallRequest]


class LlmError(CallEvent, tag="llm.error", kw_only=True):
    """The model failed; the call goes on."""

    error: str
    code: str


class HistoryUpdated(CallEvent, tag="history.updated", kw_only=True):
    """Acknowledges one history command."""

    count: int
    request_id: str | Maybe = UNSET
    error: str | Maybe = UNSET


class HistoryData(CallEvent, tag="history.data", kw_only=True):
    """The conversation as the model sees it, system first."""

    messages: list[CallMessage]
    request_id: str | Maybe = UNSET


class SessionConfigured(CallEvent, tag="session.configured", kw_only=True):
    """Acknowledges `session.configure`."""

    success: bool
    error: str | Maybe = UNSET


class SessionIdleWarning(CallEvent, tag="session.idle_warning", kw_only=True):
    """Nobody has spoken for a while."""

    remaining_seconds: int
    idle_timeout_seconds: int


class SessionTimeout(CallEvent, tag="session.timeout", kw_only=True):
    """The call is about to end; `reason` is idle_timeout or max_duration."""

    reason: str


class CallError(CallEvent, tag="error", kw_only=True):
    """A vendor failed in this call; the call goes on."""

    code: str
    error: str


class TurnAudio(CallEvent, tag="turn.audio", kw_only=True):
    """The sound of the user's whole turn; `audio` is a base64 WAV file of 16-bit mono samples."""

    turn_id: int
    audio: str
    sample_rate: int
    format: str = "wav"


class BotAudioComplete(CallEvent, tag="bot.audio.complete", kw_only=True):
    """The sound of a message as far as the caller heard it; `audio` as in `turn.audio`."""

    message_id: str
    audio: str
    sample_rate: int
    duration_ms: int
    format: str = "wav"


class CallRecording(CallEvent, tag="call.recording", kw_only=True):
    """The sound of the call, both sides; comes before `call.ended`. `audio` goes out as in `turn.audio`, but is made
    while it is sent: encoders must know `WavSound`."""

    audio: WavSound
    duration_ms: int
    sample_rate: int
    format: str = "wav"
