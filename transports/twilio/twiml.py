"""What we answer the carrier's voice webhook with."""

# The vendor's package has no types.
# pyright: reportUnknownMemberType=false
from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from twilio.twiml.voice_response import Connect, Dial, Stream, VoiceResponse

RejectReason = Literal["rejected", "busy"]


def connect_stream(url: str, parameters: Mapping[str, str]) -> str:
    """Put the call on a bidirectional media stream at `url` (`wss://…` without a query, Twilio drops that).

    `parameters` come back in the `start` frame. The call ends when our side closes the stream: no verb follows.
    """
    stream = Stream(url=url)
    for name, value in parameters.items():
        stream.parameter(name=name, value=value)
    connect = Connect()
    connect.append(stream)
    response = VoiceResponse()
    response.append(connect)
    return str(response)


def reject(reason: RejectReason = "rejected") -> str:
    """Do not take the call; nothing is billed."""
    response = VoiceResponse()
    response.reject(reason=reason)
    return str(response)


def say_and_hang_up(text: str) -> str:
    """Answer, read `text` out with the carrier's own voice, hang up."""
    response = VoiceResponse()
    response.say(text)
    response.hangup()
    return str(response)


def dial(to: str, caller_id: str, action: str) -> str:
    """Connect the caller with a number, or a SIP address; the outcome is told to the URL `action`. `caller_id` is what
    they see who are called; empty: what the carrier finds fit."""
    response = VoiceResponse()
    verb = Dial(caller_id=caller_id or None, action=action, timeout=25, answer_on_bridge=True)
    if "@" in to:
        verb.sip(to)
    else:
        verb.number(to)
    response.append(verb)
    return str(response)


def hang_up() -> str:
    """Nothing more to say."""
    response = VoiceResponse()
    response.hangup()
    return str(response)
