"""What a slow client loses, and when it loses its connection."""

from __future__ import annotations

import json

import pytest

from server.agents.outbox import HARD_LIMIT, INTERIM_LIMIT, METRICS_LIMIT, Outbox
from wire.events import AudioMetrics, BotSpeaking, BotWord, MessageConfirmed, UserSpeaking
from wire.link_events import Pong

MEBIBYTE = "x" * (1024 * 1024)
METRICS = AudioMetrics(source="user", energy_db=-20, rms=0.1, peak=0.2, is_speech=True, vad_prob=0.9, timestamp=1.0)
INTERIM = UserSpeaking(message_id="u1", turn_id=1, text="hel", confidence=0.5)
WORD = BotWord(message_id="m1", word="hi", word_index=0, start_time=0.0, end_time=0.1)


def filled(limit: int) -> Outbox:
    outbox = Outbox()
    while outbox.size < limit:
        assert outbox.put(MessageConfirmed(message_id="m", text=MEBIBYTE))
    return outbox


async def rest(outbox: Outbox) -> list[str]:
    outbox.close()
    events: list[str] = []
    while (frame := await outbox.next()) is not None:
        assert isinstance(frame, bytes)
        events.append(json.loads(frame)["event"])
    return events


async def test_frames_leave_in_order_and_each_as_one_json_object() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.put(Pong(timestamp=float(number)))
    first = await outbox.next()
    assert first == b'{"event":"pong","timestamp":0.0}'
    assert await rest(outbox) == ["pong", "pong"]
    assert outbox.size == 0


async def test_loudness_goes_first_then_interim_texts_and_words_never_facts() -> None:
    outbox = filled(METRICS_LIMIT)
    before = len(outbox)
    assert outbox.put(METRICS)
    assert len(outbox) == before
    assert outbox.put(INTERIM)
    assert outbox.put(WORD)
    assert len(outbox) == before + 2
    outbox = filled(INTERIM_LIMIT)
    before = len(outbox)
    assert outbox.put(INTERIM)
    assert outbox.put(WORD)
    assert outbox.put(METRICS)
    assert len(outbox) == before
    assert outbox.put(BotSpeaking(message_id="m2", text="Hello"))
    assert (await rest(outbox))[-1] == "bot.speaking"
    assert outbox.dropped == 3


async def test_a_client_that_does_not_read_at_all_is_given_up() -> None:
    outbox = Outbox()
    for _ in range(HARD_LIMIT // len(MEBIBYTE)):
        if not outbox.put(MessageConfirmed(message_id="m", text=MEBIBYTE)):
            break
    assert not outbox.put(MessageConfirmed(message_id="m", text=MEBIBYTE))
    assert outbox.size <= HARD_LIMIT
    outbox.close(discard=True)
    assert await outbox.next() is None


@pytest.mark.parametrize("discard", [False, True])
async def test_nothing_is_taken_after_closing(discard: bool) -> None:
    outbox = Outbox()
    outbox.put(Pong(timestamp=1.0))
    outbox.close(discard=discard)
    assert outbox.put(Pong(timestamp=2.0))
    assert len(await rest(outbox)) == (0 if discard else 1)
