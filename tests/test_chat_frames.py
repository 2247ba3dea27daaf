"""Chat pages without a socket: what is read of their frames, what they are sent, how much of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from transports.chat.frames import Context, Incoming, Message, Nonsense, Ping, read
from transports.chat.page import MAX_WAITING, MERGED_FROM, ChatPage
from transports.flood import FloodGate, Verdict


@pytest.mark.parametrize(
    ("frame", "meaning"),
    [
        ('{"event":"message","text":"Hi"}', Message("Hi")),
        ('{"type":"user.message","text":"Hi"}', Message("Hi")),
        ('{"action":"inject_text","text":"Hi"}', Message("Hi")),
        ('{"event":"message","text":null}', Nonsense()),
        ('{"event":"set_context","key":"k","value":"v"}', Context("k", "v")),
        ('{"event":"set_context","key":"k","value":null}', Context("k", None)),
        ('{"event":"set_context","key":"k"}', Context("k", None)),
        ('{"event":"set_context","key":"k","value":[1,"é"]}', Context("k", '[1,"é"]')),
        ('{"event":"set_context","key":7,"value":"v"}', Nonsense()),
        ('{"event":"ping"}', Ping(wants_pong=True)),
        ('{"action":"ping"}', Ping(wants_pong=True)),
        ("ping", Ping(wants_pong=False)),
        ('{"event":"chat.done","text":"Hi"}', Nonsense()),
        ('{"event":{"message":1},"text":"Hi"}', Nonsense()),
        ("[" * 5000, Nonsense()),
        ('{"event":"message","text":"\ud800"}', Nonsense()),
        ("", Nonsense()),
    ],
)
def test_a_frame_means_one_thing_or_nothing(frame: str, meaning: Incoming) -> None:
    assert read(frame) == meaning


class Listening:
    """A conversation that writes down what it is told."""

    call_id = "chat-1"

    def __init__(self) -> None:
        self.written: list[str] = []
        self.ended = ""

    def write(self, text: str) -> None:
        self.written.append(text)

    def set_page_context(self, key: str, value: str | None) -> bool:
        return bool(key and value)

    def end(self, reason: str) -> None:
        self.ended = self.ended or reason


async def sent(page: ChatPage) -> list[dict[str, Any]]:
    """Everything that waits for a page that is closing."""
    page.close(1000, "")
    frames: list[dict[str, Any]] = []
    while (frame := await page.next()) is not None:
        frames.append(json.loads(frame))
    return frames


async def test_a_quick_answer_keeps_its_pieces_and_a_slow_page_gets_fewer() -> None:
    page = ChatPage("mara")
    page.open(Listening())
    text = ""
    for number in range(1000):
        text += f"{number} "
        page.token("m", f"{number} ", text)
    page.done("m", text)
    frames = await sent(page)
    tokens = [frame for frame in frames if frame["event"] == "chat.token"]
    assert len(tokens) == MERGED_FROM - 1
    assert tokens[1]["text"] == "0 1 "
    assert "".join(frame["token"] for frame in tokens) == tokens[-1]["text"] == frames[-1]["text"] == text


async def test_a_page_that_takes_nothing_is_given_up() -> None:
    page, conversation = ChatPage("mara"), Listening()
    page.open(conversation)
    for number in range(MAX_WAITING + 10):
        page.done(f"m{number}", "Hi")
    assert conversation.ended == "connection_lost"
    assert page.closure is not None
    assert page.closure.code == 1013
    assert await page.next() is None


def test_frames_come_in_a_measure_that_refills() -> None:
    gate = FloodGate()
    assert [gate.judge(100, 0.0) for _ in range(20)] == [Verdict.TAKE] * 20
    assert gate.judge(100, 0.0) is Verdict.STRIKE
    assert gate.judge(100, 0.1) is Verdict.DROP
    assert gate.judge(100, 0.6) is Verdict.TAKE
    assert [gate.judge(100, 100.0) for _ in range(20)] == [Verdict.TAKE] * 20
    assert gate.judge(100, 100.0) is Verdict.STRIKE
    assert gate.judge(100, 100.5) is Verdict.TAKE
    assert gate.judge(16 * 1024 + 1, 200.0) is Verdict.END


def test_pings_have_a_measure_of_their_own() -> None:
    gate = FloodGate()
    assert all(gate.judge(10, second, ping=True) is Verdict.TAKE for second in range(600))
    assert [gate.judge(10, 600.0, ping=True) for _ in range(100)].count(Verdict.TAKE) == 100
    assert gate.judge(10, 600.0, ping=True) is Verdict.STRIKE
    assert gate.judge(10, 600.0) is Verdict.TAKE
