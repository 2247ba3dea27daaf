"""One spelling for each number and SIP address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transports.twilio.numbers import is_e164, is_sip, normalise, reported


@pytest.mark.proves("row-17")
@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("(202) 555-0142", "+12025550142"),
        ("+1 202-555-0142", "+12025550142"),
        ("1.202.555.0142", "+12025550142"),
        (" 12025550142", "+12025550142"),
        ("phone:+12025550142", "+12025550142"),
        ("Phone: (202) 555\u20110142", "+12025550142"),
        ("anonymous", "anonymous"),
        ("client:Bob", "client:bob"),
        ("client:bob@home", "client:bob@home"),
        ("", ""),
        ("+", "+"),
    ],
)
def test_numbers_are_compared_by_their_digits(raw: str, expected: str) -> None:
    assert normalise(raw) == expected
    assert not is_sip(raw)


@pytest.mark.proves("row-17")
@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("sip:Reception@Acme.sip.twilio.com", "reception@acme.sip.twilio.com"),
        ("sips:reception@acme.sip.twilio.com:5061;transport=tls", "reception@acme.sip.twilio.com"),
        ("sip:reception@acme.sip.us1.twilio.com", "reception@acme.sip.twilio.com"),
        ("sip:reception@acme.sip.dublin.ie1.twilio.com;a=b?X-Ref=c@d", "reception@acme.sip.twilio.com"),
        ("<sip:reception@acme.sip.twilio.com>", "reception@acme.sip.twilio.com"),
        ("phone:sip:+12025550142;phone-context=x@10.0.0.1:5060", "+12025550142@10.0.0.1"),
        ("reception@acme.example", "reception@acme.example"),
        ("sip:acme.sip.twilio.com", "acme.sip.twilio.com"),
        ("sip:a@[::1]:5060", "a@[::1]"),
    ],
)
def test_sip_addresses_are_compared_without_what_varies(raw: str, expected: str) -> None:
    assert normalise(raw) == expected
    assert reported(raw) == "sip:" + expected


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing_and_nothing_raises(raw: str) -> None:
    once = normalise(raw)
    if not is_sip(raw):
        assert normalise(once) == once


@pytest.mark.parametrize(
    ("number", "plausible"),
    [("+12025550142", True), ("+0123456789", False), ("12025550142", False), ("+123", False), ("+1" + "2" * 15, False)],
)
def test_an_implausible_number_is_told_from_a_plausible_one(number: str, plausible: bool) -> None:
    assert is_e164(number) is plausible
