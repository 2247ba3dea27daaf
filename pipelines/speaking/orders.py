"""What the agent's program wants said: `bot.reply`, `bot.reply.stream`, `bot.cancel`, `bot.clear` (protocol §2.3).

Judges replies against the turn they answer, and turns what is welcome into utterances.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from pipelines.clock import Clock
from pipelines.events import CallEvents
from pipelines.ids import new_id
from pipelines.speaking.mouth import Mouth
from pipelines.speaking.utterance import Origin, Utterance
from pipelines.thinking.replies import Replies
from wire.commands import BotCancel, BotClear, BotReply, BotReplyStream
from wire.events import ReplyRejected

log = structlog.get_logger(__name__)

MAX_TEXT = 16_000
"""Characters of one message; what is longer is cut there. A quarter of an hour of speech."""

STREAM_SECONDS = 30.0
"""A stream that is not written to for so long has been forgotten by its agent."""

SpeechCommand = BotReply | BotReplyStream | BotCancel | BotClear


class Orders:
    """Carries out the agent's speech commands for one call."""

    def __init__(
        self, mouth: Mouth, replies: Replies, events: CallEvents, clock: Clock, on_accepted: Callable[[], None]
    ) -> None:
        """`on_accepted` is told of every message that is going to be said."""
        self._mouth = mouth
        self.replies = replies
        self._events = events
        self._clock = clock
        self._on_accepted = on_accepted
        self._streams: dict[str, Utterance] = {}
        self._touched: dict[str, float] = {}

    def obey(self, command: SpeechCommand) -> None:
        """Carry out one command, in the order they came. Never blocks."""
        match command:
            case BotReply():
                self._reply(command)
            case BotReplyStream(action="start"):
                self._start(command)
            case BotReplyStream(action="chunk"):
                self._chunk(command)
            case BotReplyStream():
                self._end(command.message_id)
            case BotCancel():
                self._mouth.cancel(command.message_id or None)
            case BotClear():
                self._mouth.clear()

    def beat(self, now: float) -> None:
        """Called every tick: a stream that its agent has forgotten must not hold up what comes after it."""
        for message_id in [name for name, at in self._touched.items() if now - at >= STREAM_SECONDS]:
            log.warning("stream_forgotten", message_id=message_id)
            self._end(message_id)

    def close_streams(self) -> None:
        """The agent's socket is gone: no more tokens will come."""
        for message_id in list(self._streams):
            self._end(message_id)

    def _reply(self, command: BotReply) -> None:
        utterance = self._admit(command.message_id, command.in_reply_to, remembered=command.add_to_history)
        if utterance is not None:
            utterance.announced_text = command.text[:MAX_TEXT]
            utterance.write(command.text[:MAX_TEXT])
            utterance.close()

    def _start(self, command: BotReplyStream) -> None:
        if command.message_id in self._streams:
            return
        utterance = self._admit(command.message_id, command.in_reply_to, remembered=command.add_to_history)
        if utterance is not None:
            # By the id that its chunks will bear, were it empty.
            self._streams[command.message_id] = utterance
            self._touched[command.message_id] = self._clock.now()

    def _chunk(self, command: BotReplyStream) -> None:
        stream = self._streams.get(command.message_id)
        if stream is None and command.message_id and not self.replies.knows(command.message_id):
            # Tokens of a stream that was never started: taken as an unconditional one.
            self._start(BotReplyStream(call_id=command.call_id, message_id=command.message_id, action="start"))
            stream = self._streams.get(command.message_id)
        if stream is not None and len(stream.text) < MAX_TEXT:
            stream.write(command.token)
            self._touched[command.message_id] = self._clock.now()

    def _end(self, message_id: str) -> None:
        self._touched.pop(message_id, None)
        stream = self._streams.pop(message_id, None)
        if stream is not None:
            stream.close()

    def _admit(self, message_id: str, in_reply_to: str, *, remembered: bool) -> Utterance | None:
        message_id = message_id or new_id("msg")
        rejection = self.replies.admit(message_id, in_reply_to)
        if rejection is None:
            utterance = Utterance(message_id, in_reply_to, Origin.CLIENT, remembered=remembered)
            if self._mouth.enqueue(utterance):
                self._on_accepted()
                return utterance
            reason, expected = "queue_full", in_reply_to
        else:
            reason, expected = rejection.reason, rejection.expected
        self._events.publish(
            ReplyRejected(message_id=message_id, in_reply_to=in_reply_to, expected_reply_to=expected, reason=reason)
        )
        return None
