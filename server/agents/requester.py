"""An SDK connection that writes to an agent by `llm.chat`, and reads the answers (protocol §3.11)."""

from __future__ import annotations

from server.agents.agent import Agent
from server.agents.link import AgentLink
from wire.chat_events import ChatBegun, ChatFailed, LlmChatDone, LlmChatToken, LlmChatToolCall, LlmChatToolResult
from wire.events import ToolCallRequest


class LinkRequester:
    """A `Requester` whose answers go to that connection alone, under the name it gave the conversation."""

    def __init__(self, link: AgentLink, session_id: str, agent: Agent, model: str = "") -> None:
        self._link = link
        self._session_id = session_id
        self._owner = agent.link
        self._model = model

    def begun(self, model: str) -> None:
        """The first message was taken. The agent's own connection knows from the event that only it gets."""
        self._model = model
        if self._owner is not self._link:
            self._link.deliver(ChatBegun(session_id=self._session_id, model=model))

    def token(self, message_id: str, token: str, text: str) -> None:
        """More of an answer."""
        self._link.deliver(LlmChatToken(session_id=self._session_id, message_id=message_id, token=token, text=text))

    def tool_call(self, message_id: str, calls: list[ToolCallRequest]) -> None:
        """The agent's program is running these."""
        self._link.deliver(LlmChatToolCall(session_id=self._session_id, message_id=message_id, tool_calls=calls))

    def tool_result(self, message_id: str, call: ToolCallRequest, result: str) -> None:
        """What one of them came to."""
        self._link.deliver(
            LlmChatToolResult(
                session_id=self._session_id,
                message_id=message_id,
                tool_call_id=call.id,
                name=call.name,
                result=result,
            )
        )

    def done(self, message_id: str, text: str) -> None:
        """The whole answer."""
        done = LlmChatDone(session_id=self._session_id, message_id=message_id, text=text, model=self._model)
        self._link.deliver(done)

    def failed(self, error: str) -> None:
        """A message that will not be answered."""
        self._link.deliver(ChatFailed(session_id=self._session_id, error=error))

    def ended(self, reason: str) -> None:
        """The conversation is over: the next message of that name begins another."""
