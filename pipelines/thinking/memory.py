"""The agent's grip on the conversation: `history.*` and `set_context` (protocol §2.6).

Every request is answered, at once and in order: some clients wait for the answer for ever and match it by its name.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from pipelines.events import CallEvents
from pipelines.thinking.mind import Mind
from wire.commands import (
    CallCommand,
    HistoryAdd,
    HistoryAddContext,
    HistoryClear,
    HistoryCommand,
    HistoryGet,
    HistoryMessage,
    HistorySet,
    HistorySetInstructions,
    HistorySetVars,
    SetContext,
)
from wire.events import CallMessage, HistoryData, HistoryUpdated

NO_MODEL = "no_server_llm"
"""What a call without a model on the server answers; newer clients raise it."""


class MemoryDesk:
    """Carries out the commands that read or change what the model knows."""

    def __init__(self, mind: Mind, template: str, events: CallEvents) -> None:
        self._mind = mind
        self._events = events
        self._first_template = template

    def obey(self, command: CallCommand) -> bool:
        """Carry out one command; False when it is none of these."""
        if isinstance(command, SetContext):
            self._set_context(command)
            return True
        if not isinstance(command, HistoryCommand):
            return False
        request_id = command.request_id or UNSET
        if isinstance(command, HistoryGet):
            system = self._mind.system() if self._mind.thinks else ""
            messages = self._mind.history.data(system)
            self._events.publish(HistoryData(messages=messages, request_id=request_id))
        elif self._mind.thinks:
            self._change(command)
            self._events.publish(HistoryUpdated(count=self._mind.history.count, request_id=request_id))
        else:
            self._events.publish(HistoryUpdated(count=0, request_id=request_id, error=NO_MODEL))
        return True

    def _change(self, command: HistoryCommand) -> None:
        history, prompt = self._mind.history, self._mind.prompt
        match command:
            case HistoryAdd():
                history.add(map(_entry, command.messages), self._prompts())
            case HistorySet():
                history.set(map(_entry, command.messages), self._prompts())
            case HistoryClear():
                history.clear()
            case HistorySetInstructions():
                prompt.set_instructions(command.prompt)
            case HistorySetVars():
                prompt.set_vars({name: _text(value) for name, value in command.vars.items()})
            case HistoryAddContext():
                prompt.add_context(command.text)
            case _:
                raise AssertionError(f"no such command: {command}")

    def _prompts(self) -> tuple[str, ...]:
        """Texts that are the instructions and not part of the conversation, however an app got hold of them."""
        return (self._mind.prompt.template, self._first_template, self._mind.system())

    def _set_context(self, command: SetContext) -> None:
        value: object = msgspec.json.decode(command.value)
        text = value if isinstance(value, str) else "" if value is None else bytes(command.value).decode()
        self._mind.prompt.set_context(command.key, text)


def _entry(message: HistoryMessage) -> CallMessage:
    return CallMessage(
        role=message.role,
        content=message.content,
        tool_calls=list(message.tool_calls) or UNSET,
        tool_call_id=message.tool_call_id or UNSET,
    )


def _text(value: str | float | bool | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
