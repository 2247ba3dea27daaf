"""Commands that an SDK sends, one type each, in the wire's own words (protocol §2).

`wire.parsing.parse` makes them from frames. Ids (`agent_id`) are exactly what the client sent, in any form. `config`
holds every configuration key of the frame (protocol §5.2) as the JSON that came, to be read by `wire.resolve`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from wire.events import ToolCallRecord

RawConfig = dict[str, msgspec.Raw]
"""Configuration keys as sent: any casing, any shape."""


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """Anything a client sends."""


# --- the connection ---


class Connect(Command, frozen=True, tag="connect", kw_only=True):
    """The first frame: who is there."""

    api_key: str = ""


class Ping(Command, frozen=True, tag="ping", kw_only=True):
    """Wants a `pong`."""


class Pong(Command, frozen=True, tag="pong", kw_only=True):
    """Answers our `ping`."""


# --- agents and channels ---


class AgentCreate(Command, frozen=True, tag="agent.create", kw_only=True):
    """Create or replace an agent; an empty `agent_id` asks for a generated one."""

    agent_id: str = ""
    config: RawConfig = {}
    allowed_origins: list[str] = []
    history_save: bool = False


class AgentConfigure(Command, frozen=True, tag="agent.configure", kw_only=True):
    """Patch the defaults of future calls."""

    agent_id: str
    config: RawConfig = {}


class AgentResume(Command, frozen=True, tag="agent.resume", kw_only=True):
    """Bind a known agent that nobody holds, with the configuration it had."""

    agent_id: str


class AgentRemove(Command, frozen=True, tag="agent.remove", kw_only=True):
    """End the agent, its calls and its channels."""

    agent_id: str


class DevConfig(Command, frozen=True, tag="dev.config", kw_only=True):
    """The callers that reach non-production agents of this connection (or the one named)."""

    callers: list[str]
    agent_id: str = ""


ChannelType = Literal["phone", "webrtc", "mic", "chat", "whatsapp"]


class ChannelAdd(Command, frozen=True, tag="channel.add", kw_only=True):
    """Reach the agent through this, too. The WhatsApp fields are camelCase on the wire."""

    agent_id: str
    type: ChannelType
    ref: str = ""
    config: RawConfig = {}
    ringing: bool = False
    access_token: str = ""
    verify_token: str = ""
    app_secret: str = ""
    phone: str = ""


class ChannelConfigure(Command, frozen=True, tag="channel.configure", kw_only=True):
    """Patch the channel's own configuration, for its future calls."""

    agent_id: str
    ref: str
    config: RawConfig = {}


class ChannelRemove(Command, frozen=True, tag="channel.remove", kw_only=True):
    """No more calls from there; live ones go on."""

    agent_id: str
    ref: str = ""
    type: str = ""


RegistrationCommand = (
    AgentCreate | AgentConfigure | AgentResume | AgentRemove | DevConfig | ChannelAdd | ChannelConfigure | ChannelRemove
)


# --- one call; found by its `call_id` alone ---


class OnCall(Command, frozen=True, kw_only=True):
    """Addressed to one call."""

    call_id: str


class BotReply(OnCall, frozen=True, tag="bot.reply", kw_only=True):
    """Say this; an empty `in_reply_to` is unconditional, an empty `message_id` asks for a generated one."""

    text: str
    message_id: str = ""
    in_reply_to: str = ""
    add_to_history: bool = False


class BotReplyStream(OnCall, frozen=True, tag="bot.reply.stream", kw_only=True):
    """One step of a streamed reply."""

    message_id: str
    action: Literal["start", "chunk", "end"]
    in_reply_to: str = ""
    token: str = ""
    add_to_history: bool = False


class BotCancel(OnCall, frozen=True, tag="bot.cancel", kw_only=True):
    """Stop that message, or (empty id) the one playing or next."""

    message_id: str = ""


class BotClear(OnCall, frozen=True, tag="bot.clear", kw_only=True):
    """Stop speaking and drop all that is queued."""


class CallHangup(OnCall, frozen=True, tag="call.hangup", kw_only=True):
    """End now; an empty reason means `client_hangup`."""

    reason: str = ""


class CallForward(OnCall, frozen=True, tag="call.forward", kw_only=True):
    """Transfer the caller to `to`."""

    to: str
    message: str = ""
    announce: bool = False


class CallDtmf(OnCall, frozen=True, tag="call.dtmf", kw_only=True):
    """Play these keys: 0-9 * # A-D w and comma."""

    digits: str


class CallHold(OnCall, frozen=True, tag="call.hold", kw_only=True):
    """Music, and nobody listens."""


class CallUnhold(OnCall, frozen=True, tag="call.unhold", kw_only=True):
    """Back from hold."""


class CallMute(OnCall, frozen=True, tag="call.mute", kw_only=True):
    """Stop listening."""


class CallUnmute(OnCall, frozen=True, tag="call.unmute", kw_only=True):
    """Listen again."""


class CallAccept(OnCall, frozen=True, tag="call.accept", kw_only=True):
    """Answer the ringing call."""


class CallReject(OnCall, frozen=True, tag="call.reject", kw_only=True):
    """Refuse the ringing call: `busy` or `rejected`."""

    reason: str = "busy"


class SetContext(OnCall, frozen=True, tag="set_context", kw_only=True):
    """Keyed context of the session."""

    key: str
    value: msgspec.Raw


class SessionConfigure(OnCall, frozen=True, tag="session.configure", kw_only=True):
    """Patch this call only. On the wire the call is named `session_id`."""

    config: RawConfig = {}


class HistoryCommand(OnCall, frozen=True, kw_only=True):
    """Each wants exactly one answer that repeats `request_id`, if there is one."""

    request_id: str = ""


class HistoryMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One OpenAI-shaped entry."""

    role: str
    content: str | None = None
    tool_calls: list[ToolCallRecord] = []
    tool_call_id: str = ""


class HistoryGet(HistoryCommand, frozen=True, tag="history.get", kw_only=True):
    """Wants `history.data`."""


class HistoryAdd(HistoryCommand, frozen=True, tag="history.add", kw_only=True):
    """Append."""

    messages: list[HistoryMessage]


class HistorySet(HistoryCommand, frozen=True, tag="history.set", kw_only=True):
    """Replace."""

    messages: list[HistoryMessage]


class HistoryClear(HistoryCommand, frozen=True, tag="history.clear", kw_only=True):
    """Drop all but the instructions."""


class HistorySetInstructions(HistoryCommand, frozen=True, tag="history.set_instructions", kw_only=True):
    """New instructions for this call."""

    prompt: str


class HistorySetVars(HistoryCommand, frozen=True, tag="history.set_vars", kw_only=True):
    """Merge into the template variables; values that are not strings are taken as their text."""

    vars: dict[str, str | int | float | bool | None]


class HistoryAddContext(HistoryCommand, frozen=True, tag="history.add_context", kw_only=True):
    """Append a block after the instructions."""

    text: str


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one tool call came to; `result` is any JSON."""

    tool_call_id: str
    result: msgspec.Raw = msgspec.Raw(b"null")
    ephemeral: bool = False
    no_followup: bool = False


class LlmToolResult(OnCall, frozen=True, tag="llm.tool_result", kw_only=True):
    """Answers an `llm.tool_call`, wholly or in part."""

    msg_id: str
    results: list[ToolResult]


class LlmReady(OnCall, frozen=True, tag="llm.ready", kw_only=True):
    """Releases the turn that `llm.before` announced."""


class SkillLoad(OnCall, frozen=True, tag="skill.load", kw_only=True):
    """Switch a declared skill on."""

    skill: str


class SkillUnload(OnCall, frozen=True, tag="skill.unload", kw_only=True):
    """Switch it off."""

    skill: str


CallCommand = (
    BotReply
    | BotReplyStream
    | BotCancel
    | BotClear
    | CallHangup
    | CallForward
    | CallDtmf
    | CallHold
    | CallUnhold
    | CallMute
    | CallUnmute
    | CallAccept
    | CallReject
    | SetContext
    | SessionConfigure
    | HistoryGet
    | HistoryAdd
    | HistorySet
    | HistoryClear
    | HistorySetInstructions
    | HistorySetVars
    | HistoryAddContext
    | LlmToolResult
    | LlmReady
    | SkillLoad
    | SkillUnload
)
"""Everything addressed to one call."""


# --- an agent's initiative ---


class CallDial(Command, frozen=True, tag="call.dial", kw_only=True):
    """Ring somebody; an empty `from_` means the agent's only number."""

    agent_id: str
    to: str
    from_: str = msgspec.field(name="from", default="")
    greeting: str = ""
    metadata: dict[str, msgspec.Raw] = {}
    config: RawConfig = {}
    detect_turn_end: bool = False


class CallBridge(Command, frozen=True, tag="call.bridge", kw_only=True):
    """Let two agents speak with each other."""

    agent_id: str
    target: str
    greeting: str = ""
    metadata: dict[str, msgspec.Raw] = {}
    config: RawConfig = {}
    media: msgspec.Raw = msgspec.Raw(b"null")
    detect_turn_end: bool = True


class LlmChat(Command, frozen=True, tag="llm.chat", kw_only=True):
    """One text turn with any online agent of the organisation."""

    session_id: str
    agent_id: str
    text: str
    metadata: dict[str, msgspec.Raw] = {}


class SessionPause(Command, frozen=True, tag="session.pause", kw_only=True):
    """A human takes over one session, one contact, or (neither) the whole agent."""

    agent_id: str
    session_id: str = ""
    contact: str = ""


class SessionResume(Command, frozen=True, tag="session.resume", kw_only=True):
    """The agent takes over again; same scopes."""

    agent_id: str
    session_id: str = ""
    contact: str = ""


class SessionSend(Command, frozen=True, tag="session.send", kw_only=True):
    """The human writes."""

    agent_id: str
    text: str
    session_id: str = ""
    contact: str = ""


AgentCommand = CallDial | CallBridge | LlmChat | SessionPause | SessionResume | SessionSend
"""What an agent starts by itself, outside of a call."""

AnyCommand = Connect | Ping | Pong | RegistrationCommand | CallCommand | AgentCommand


class Unknown(msgspec.Struct, frozen=True):
    """A frame with an event this gateway does not know: newer clients send such, and expect silence."""

    event: str
