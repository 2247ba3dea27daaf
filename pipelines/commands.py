"""What the agent's program may ask of a live call, and which room does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from pipelines.attention import Attention
from pipelines.barge_in import BargeIn
from pipelines.clock import Clock
from pipelines.forwarding import Forwarding
from pipelines.keypad import Keypad
from pipelines.speaking.mouth import Mouth
from pipelines.speaking.orders import Orders
from pipelines.thinking.dialogue import Dialogue
from pipelines.thinking.memory import MemoryDesk
from wire.commands import (
    BotCancel,
    BotClear,
    BotReply,
    BotReplyStream,
    CallCommand,
    CallDtmf,
    CallForward,
    CallHangup,
    CallHold,
    CallMute,
    CallUnhold,
    CallUnmute,
    LlmToolResult,
    SessionConfigure,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Commands:
    """Carries out commands one by one, in the order they came. Nothing here blocks."""

    clock: Clock
    mouth: Mouth
    orders: Orders
    attention: Attention
    barge_in: BargeIn
    dialogue: Dialogue
    memory: MemoryDesk
    forwarding: Forwarding
    keypad: Keypad
    configure: Callable[[SessionConfigure], None]
    end: Callable[[str], None]

    def obey(self, command: CallCommand) -> None:
        """Carry out one command."""
        match command:
            case BotReply() | BotReplyStream() | BotCancel() | BotClear():
                if isinstance(command, BotCancel | BotClear):
                    self.barge_in.abandon()
                self.orders.obey(command)
                self.mouth.beat(self.clock.now())
            case CallHangup():
                self.end(command.reason or "client_hangup")
            case CallMute():
                self.attention.mute()
            case CallUnmute():
                self.attention.unmute()
            case CallHold():
                self.attention.hold(self.clock.now())
            case CallUnhold():
                self.attention.unhold()
            case CallForward():
                self.forwarding.start(command)
            case CallDtmf():
                self.keypad.press(command)
                self.mouth.beat(self.clock.now())
            case SessionConfigure():
                self.configure(command)
            case LlmToolResult():
                self.dialogue.tool_result(command)
            case _:
                if not self.memory.obey(command):
                    log.info("command_not_supported", command=type(command).__struct_config__.tag)
