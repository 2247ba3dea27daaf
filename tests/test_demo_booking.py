"""The demo host understands what callers say."""

from __future__ import annotations

import pytest

from demo.booking import Host


@pytest.mark.parametrize(
    ("said", "party", "day", "time"),
    [
        ("i would like a table for four on friday at eight", 4, "friday", "8 o'clock"),
        ("a table for two tomorrow at seven thirty", 2, "tomorrow", "7 30"),
        ("we are six people", 6, None, None),
        ("a table at nine please", None, None, "9 o'clock"),
        ("hello", None, None, None),
    ],
)
def test_the_host_takes_what_the_words_say(said: str, party: int | None, day: str | None, time: str | None) -> None:
    host = Host()
    host.hear(said)
    assert (host.booking.party, host.booking.day, host.booking.time) == (party, day, time)


def test_the_host_asks_for_what_is_missing_and_books_only_what_was_confirmed() -> None:
    host = Host()
    assert "how many" in host.hear("i would like to book a table").text
    assert "day" in host.hear("four").text
    assert "time" in host.hear("on saturday").text
    assert host.hear("at eight").text.endswith("table for 4, saturday at 8 o'clock. Is that right?")
    assert not host.booking.confirmed
    answer = host.hear("yes please")
    assert host.booking.confirmed
    assert answer.over


def test_a_wrong_booking_is_corrected() -> None:
    host = Host()
    host.hear("a table for two on friday at nine")
    answer = host.hear("no for three on friday at nine")
    assert "table for 3" in answer.text
