"""What the agent's own program says in a chat: `bot.*` as on a call (protocol §2.3), read instead of heard.

The first message while a turn waits for the program is its answer. What comes while another answer is being written
waits for its end; what comes at any other time is a message of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipelines.chatting.turns import Reply, Turn
from pipelines.ids import new_id
from pipelines.thinking.replies import Replies
from wire.commands import BotCancel, BotClear, BotReply, BotReplyStream
from wire.events import CallEvent, ReplyRejected

MAX_TEXT = 16_000
"""Characters of one message; what is longer is cut there."""
MAX_WAITING = 64
"""Messages that may wait for the end of an answer, and streams that may be open."""

SpeechCommand = BotReply | BotReplyStream | BotCancel | BotClear


class Floor(Protocol):
    """What the answers need of their conversation."""

    def publish(self, event: CallEvent) -> None:
        """State a fact."""
        ...

    def reply_to(self, turn: Turn, message_id: str) -> Reply:
        """Begin the answer to a turn."""
        ...

    def say(self, said: Said) -> None:
        """Give the user a message that answers nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """A whole message; `remembered`: a model on the server shall know of it."""

    message_id: str
    text: str
    remembered: bool


@dataclass(slots=True, eq=False)
class _Stream:
    """A message that comes in pieces: written into `turn`'s answer as they come, or kept until it is whole."""

    turn: Turn | None
    remembered: bool
    text: str = ""


class Answers:
    """Carries out the program's speech commands of one conversation. Nothing here blocks."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._replies = Replies()
        self._turn: Turn | None = None
        self._streams: dict[str, _Stream] = {}
        self._waiting: deque[Said] = deque()

    def begin(self, turn: Turn) -> None:
        """A turn begins."""
        self._turn = turn
        self._replies.announced(turn.message_id)

    def settle(self) -> None:
        """The turn is over, answered or not: what waited for that is said now."""
        turn, self._turn = self._turn, None
        self._streams = {name: one for name, one in self._streams.items() if one.turn is None or one.turn is not turn}
        while self._waiting:
            self._floor.say(self._waiting.popleft())

    def close_streams(self) -> None:
        """The program's socket is gone: no more pieces will come."""
        for message_id in list(self._streams):
            self._end(message_id)

    def obey(self, command: SpeechCommand, stop: Callable[[], None]) -> None:
        """Carry out one command; `stop` makes the model cease writing."""
        match command:
            case BotReply():
                self._reply(command)
            case BotReplyStream(action="start"):
                self._start(command)
            case BotReplyStream(action="chunk"):
                self._chunk(command)
            case BotReplyStream():
                self._end(command.message_id)
            case BotCancel(message_id=message_id) if message_id:
                self._cancel(message_id)
            case BotCancel() | BotClear():
                if isinstance(command, BotClear):
                    self._waiting.clear()
                    self._streams = {name: one for name, one in self._streams.items() if one.turn is not None}
                if self._turn is not None and self._turn.by_model:
                    stop()
                elif self._turn is not None and self._turn.reply is not None:
                    self._turn.answered.set()

    def _reply(self, command: BotReply) -> None:
        message_id = self._admit(command.message_id, command.in_reply_to)
        if message_id:
            self._whole(Said(message_id, command.text[:MAX_TEXT], command.add_to_history))

    def _whole(self, said: Said) -> None:
        turn = self._open_turn()
        if turn is not None:
            turn.reply = self._floor.reply_to(turn, said.message_id)
            turn.reply.write(said.text)
            turn.answered.set()
        elif self._turn is not None:
            self._waiting.append(said)
        else:
            self._floor.say(said)

    def _start(self, command: BotReplyStream) -> None:
        if command.message_id in self._streams:
            return
        message_id = self._admit(command.message_id, command.in_reply_to)
        if message_id:
            turn = self._open_turn()
            if turn is not None:
                turn.reply = self._floor.reply_to(turn, message_id)
            self._streams[command.message_id] = _Stream(turn, command.add_to_history)

    def _chunk(self, command: BotReplyStream) -> None:
        stream = self._streams.get(command.message_id)
        if stream is None and command.message_id and not self._replies.knows(command.message_id):
            # Pieces of a stream that was never started: taken as an unconditional one.
            self._start(BotReplyStream(call_id=command.call_id, message_id=command.message_id, action="start"))
            stream = self._streams.get(command.message_id)
        if stream is None or len(stream.text) >= MAX_TEXT:
            return
        stream.text += command.token
        if stream.turn is not None and stream.turn.reply is not None:
            stream.turn.reply.write(command.token)

    def _end(self, message_id: str) -> None:
        stream = self._streams.pop(message_id, None)
        if stream is None:
            return
        if stream.turn is not None:
            stream.turn.answered.set()
        elif stream.text.strip():
            self._whole(Said(message_id or new_id("msg"), stream.text, stream.remembered))

    def _cancel(self, message_id: str) -> None:
        """Drop one message; of one that is being read what was written stays."""
        self._waiting = deque(one for one in self._waiting if one.message_id != message_id)
        stream = self._streams.pop(message_id, None)
        if stream is not None and stream.turn is not None:
            stream.turn.answered.set()

    def _open_turn(self) -> Turn | None:
        """The turn that waits for the program and has no answer yet."""
        turn = self._turn
        return None if turn is None or turn.by_model or turn.reply is not None else turn

    def _admit(self, message_id: str, in_reply_to: str) -> str:
        """Judge a new message (protocol §4.1); answers its id, or "" when it was refused."""
        message_id = message_id or new_id("msg")
        rejection = self._replies.admit(message_id, in_reply_to)
        if rejection is not None:
            reason, expected = rejection.reason, rejection.expected
        elif len(self._waiting) + len(self._streams) >= MAX_WAITING:
            reason, expected = "queue_full", in_reply_to
        else:
            return message_id
        self._floor.publish(
            ReplyRejected(message_id=message_id, in_reply_to=in_reply_to, expected_reply_to=expected, reason=reason)
        )
        return ""
