"""The record of a call: what models see and what the agent gets at the end."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.thinking.history import NO_RESULT, History
from providers.base import Message, ToolCall
from wire.events import CallMessage, ToolCallFunction, ToolCallRecord

_LOOK = ToolCall("c1", "look", '{"code":1}')
_BOOK = ToolCall("c2", "book", "{}")


def _llm(history: History) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in history.messages_for_llm("")]


def _record(history: History) -> list[tuple[str, str | None]]:
    return [(message.role, message.content) for message in history.record("")]


@pytest.mark.proves("row-63")
def test_the_record_is_the_dialogue_as_it_was_heard() -> None:
    history = History()
    history.assistant_heard("g", "Hello!")
    history.user("u1", "A table", 1)
    history.assistant_says("a1", "For how many, and on which day?")
    history.assistant_heard("a1", "For how many,")
    history.user("u2", "Two.", 2)
    assert _record(history) == [
        ("assistant", "Hello!"),
        ("user", "A table"),
        ("assistant", "For how many,"),
        ("user", "Two."),
    ]
    assert _llm(history) == _record(history)


def test_what_is_being_said_is_known_to_the_model_but_not_yet_in_the_record() -> None:
    history = History()
    history.assistant_says("a1", "Let me")
    history.assistant_says("a1", "Let me check that.")
    assert _llm(history) == [("assistant", "Let me check that.")]
    assert _record(history) == []


@pytest.mark.parametrize("heard", ["", "  "])
def test_a_message_of_which_nothing_was_heard_never_was(heard: str) -> None:
    history = History()
    history.user("u1", "Hi", 1)
    history.assistant_says("a1", "Good morning")
    history.assistant_heard("a1", heard)
    assert _llm(history) == _record(history) == [("user", "Hi")]


def test_generation_after_the_interruption_does_not_bring_unheard_words_back() -> None:
    history = History()
    history.assistant_says("a1", "One two")
    history.assistant_heard("a1", "One")
    history.assistant_says("a1", "One two three")
    assert _llm(history) == [("assistant", "One")]


def test_a_turn_that_goes_on_replaces_what_it_said_before() -> None:
    history = History()
    history.user("u1", "I want", 1)
    history.assistant_says("a1", "Yes?")
    history.assistant_heard("a1", "")
    history.user("u2", "I want a table", 1)
    history.user("u3", "", 2)
    history.user("u4", "And a chair", 2)
    assert _record(history) == [("user", "I want a table"), ("user", "And a chair")]


def test_speech_kept_from_the_model_is_still_in_the_record() -> None:
    history = History()
    history.assistant_says("s1", "One moment", in_llm_context=False)
    history.assistant_heard("s1", "One moment")
    history.assistant_heard("s2", "Still here", in_llm_context=False)
    assert _llm(history) == []
    assert _record(history) == [("assistant", "One moment"), ("assistant", "Still here")]
    history.clear()
    assert len(_record(history)) == 2


def test_text_before_tool_calls_and_the_calls_are_one_message() -> None:
    history = History()
    history.user("u1", "Find me", 1)
    history.assistant_says("a1", "Let me look.")
    history.tool_calls([_LOOK, _BOOK])
    assert history.tool_result("c1", "found")
    assert history.tool_result("c2", "done")
    history.assistant_heard("a1", "Let me look.")
    assert history.messages_for_llm("Be kind.") == (
        Message("system", "Be kind."),
        Message("user", "Find me"),
        Message("assistant", "Let me look.", (_LOOK, _BOOK)),
        Message("tool", "found", tool_call_id="c1"),
        Message("tool", "done", tool_call_id="c2"),
    )


def test_a_tool_result_survives_the_interruption_of_its_reply() -> None:
    history = History()
    history.user("u1", "Book it", 1)
    history.assistant_says("a1", "Booking now.")
    history.tool_calls([_BOOK])
    history.assistant_heard("a1", "")
    history.user("u2", "Book it for two", 1)
    assert history.tool_result("c2", "booked")
    assert _llm(history) == [("assistant", ""), ("tool", "booked"), ("user", "Book it for two")]


def test_every_call_has_exactly_one_result() -> None:
    history = History()
    history.tool_calls([_LOOK, _BOOK])
    assert history.tool_result("c2", "ok")
    assert not history.tool_result("c2", "again")
    assert not history.tool_result("c9", "whose?")
    assert _llm(history) == [("assistant", ""), ("tool", NO_RESULT), ("tool", "ok")]
    assert history.tool_result("c1", "late but first")
    assert _llm(history)[1] == ("tool", "late but first")


def test_ephemeral_calls_serve_one_reply_and_never_enter_the_record() -> None:
    history = History()
    history.tool_calls([_LOOK, _BOOK], ephemeral=["c1"])
    history.tool_calls([ToolCall("c3", "peek", "{}")], ephemeral=["c3"])
    for call in ("c1", "c2", "c3"):
        history.tool_result(call, f"result {call}")
    assert len(_llm(history)) == 5
    assert [message.tool_call_id for message in history.record("") if message.role == "tool"] == ["c2"]
    history.forget_ephemeral()
    assert history.messages_for_llm("") == (
        Message("assistant", "", (_BOOK,)),
        Message("tool", "result c2", tool_call_id="c2"),
    )


def test_the_record_is_openai_shaped_on_the_wire() -> None:
    history = History()
    history.tool_calls([_LOOK])
    history.tool_result("c1", "ok")
    assert msgspec.json.decode(msgspec.json.encode(history.record("Be kind."))) == [
        {"role": "system", "content": "Be kind."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"code":1}'}}],
        },
        {"role": "tool", "content": "ok", "tool_call_id": "c1"},
    ]


def test_the_agent_can_add_set_and_clear() -> None:
    history = History()
    history.user("u1", "Hi", 1)
    assert history.add([CallMessage(role="assistant", content="Hello"), CallMessage(role="user", content="x")]) == 3
    assert history.set([CallMessage(role="user", content="Only this")]) == 1
    assert _llm(history) == [("user", "Only this")]
    assert history.data("Be kind.")[0] == CallMessage(role="system", content="Be kind.")
    assert history.clear() == 0
    assert history.count == 0


def test_system_entries_stay_in_place_but_the_own_prompt_is_not_repeated() -> None:
    history = History()
    history.user("u1", "Hi", 1)
    given = ["Be {{how}}.", "Be kind.", "The caller is Ana."]
    count = history.add(
        [CallMessage(role="system", content=text) for text in given], prompts=("Be {{how}}.", "Be kind.")
    )
    assert count == 2
    assert _llm(history) == [("user", "Hi"), ("system", "The caller is Ana.")]


def test_the_messages_of_an_earlier_call_can_be_fed_back() -> None:
    earlier = History()
    earlier.user("u1", "Look", 1)
    earlier.tool_calls([_LOOK])
    earlier.tool_result("c1", "found")
    earlier.assistant_heard("a1", "Found.")
    later = History()
    assert later.add(earlier.record("Be kind."), prompts=("Be kind.",)) == 4
    assert later.messages_for_llm("") == earlier.messages_for_llm("")


_CALL = ToolCallRecord(id="c1", function=ToolCallFunction("look", "{}"))
_GIVEN = st.lists(
    st.one_of(
        st.builds(
            CallMessage, role=st.sampled_from(["system", "user", "assistant", "other"]), content=st.text(max_size=3)
        ),
        st.just(CallMessage(role="assistant", content=None, tool_calls=[_CALL])),
        st.builds(CallMessage, role=st.just("tool"), content=st.none(), tool_call_id=st.sampled_from(["c1", "c2"])),
    ),
    max_size=8,
)


@given(_GIVEN)
def test_whatever_is_added_each_call_is_followed_by_its_result(messages: list[CallMessage]) -> None:
    history = History()
    history.add(messages)
    waiting: list[str] = []
    for message in history.messages_for_llm(""):
        if message.role == "tool":
            assert message.tool_call_id == waiting.pop(0)
        else:
            assert not waiting
            waiting = [call.id for call in message.tool_calls]
    assert not waiting
