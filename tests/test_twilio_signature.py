"""Signatures and TwiML, checked against Twilio's own package and a published example."""

# Twilio's package has no types.
# pyright: reportUnknownMemberType=false
from __future__ import annotations

from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from twilio.request_validator import RequestValidator

from transports.twilio.signature import is_loopback, parse_form, verify_stream, verify_webhook
from transports.twilio.twiml import connect_stream, reject, say_and_hang_up

TOKEN = "12345"
URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
FORM = {
    "CallSid": "CA1234567890ABCDE",
    "Digits": "1234",
    "From": "+14158675309",
    "To": "+18005551212",
    "Caller": "+14158675309",
}


def sign(url: str, form: dict[str, str] | None = None) -> str:
    return RequestValidator(TOKEN).compute_signature(url, form or {})


def test_the_example_of_the_vendors_documentation_verifies() -> None:
    assert verify_webhook(TOKEN, URL, list(FORM.items()), "RSOYDt4T1cUTdK1PDd93/VVr8B8=")


def test_blank_and_non_ascii_fields_are_part_of_what_is_signed() -> None:
    form = FORM | {"CallerName": "Zoë + Söhne & Co", "Empty": ""}
    parsed = parse_form(urlencode(form).encode())
    assert dict(parsed) == form
    assert verify_webhook(TOKEN, URL, parsed, sign(URL, form))
    assert not verify_webhook(TOKEN, URL, [pair for pair in parsed if pair[0] != "CallerName"], sign(URL, form))


@pytest.mark.parametrize("header", [None, "", "RSOYDt4T1cUTdK1PDd93/VVr8B0=", "é\udcff", "x" * 5000])
def test_a_missing_or_wrong_signature_is_refused(header: str | None) -> None:
    assert not verify_webhook(TOKEN, URL, list(FORM.items()), header)
    assert not verify_stream(TOKEN, "wss://voice.example/twilio/stream", header)


def test_a_changed_field_url_or_token_is_refused() -> None:
    form = list(FORM.items())
    good = sign(URL, FORM)
    assert not verify_webhook(TOKEN, URL, [("To", "+1900"), *form[1:]], good)
    assert not verify_webhook(TOKEN, URL + "0", form, good)
    assert not verify_webhook("other", URL, form, good)


@pytest.mark.parametrize(
    ("signed", "ours", "same"),
    [
        ("https://a.example:443/v", "https://a.example/v", True),
        ("https://a.example/v", "https://a.example:443/v", True),
        ("http://[::1]:80/v", "http://[::1]/v", True),
        ("https://a.example:8443/v", "https://a.example/v", False),
        ("https://a.example/v", "https://a.example:8443/v", False),
        ("https://a.example:80/v", "https://a.example/v", False),
    ],
)
def test_only_the_default_port_may_come_and_go(signed: str, ours: str, same: bool) -> None:
    assert verify_webhook(TOKEN, ours, list(FORM.items()), sign(signed, FORM)) is same


@pytest.mark.parametrize(
    ("signed", "ok"),
    [
        ("wss://v.example/twilio/stream", True),
        ("https://v.example/twilio/stream", True),
        ("wss://v.example/twilio/stream/", True),
        ("wss://v.example:443/twilio/stream", True),
        ("wss://w.example/twilio/stream", False),
        ("wss://v.example/twilio/streams", False),
    ],
)
def test_the_spellings_that_twilio_signs_for_a_stream_are_accepted_and_no_others(signed: str, ok: bool) -> None:
    assert verify_stream(TOKEN, "wss://v.example/twilio/stream", sign(signed)) is ok


@pytest.mark.parametrize("body", [b"\xff\xfe=1", b"a=%ff", b"&".join(b"a=1" for _ in range(400))])
def test_a_form_that_cannot_be_one_is_empty(body: bytes) -> None:
    assert list(parse_form(body)) == []


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("localhost", False),
        ("", False),
        ("::", False),
    ],
)
def test_only_this_machine_is_this_machine(host: str, here: bool) -> None:
    assert is_loopback(host) is here


def test_twiml_puts_the_call_on_our_stream_with_its_secret() -> None:
    root = ElementTree.fromstring(connect_stream("wss://v.example/twilio/stream", {"call_id": "CA1", "key": '<&"é'}))
    stream = root.find("./Connect/Stream")
    assert stream is not None
    assert stream.attrib == {"url": "wss://v.example/twilio/stream"}
    assert {p.get("name"): p.get("value") for p in stream} == {"call_id": "CA1", "key": '<&"é'}
    assert [verb.tag for verb in root] == ["Connect"]


def test_twiml_refuses_a_call_and_says_why() -> None:
    assert ElementTree.fromstring(reject("busy"))[0].attrib == {"reason": "busy"}
    said = ElementTree.fromstring(say_and_hang_up("Nobody <here>"))
    assert [(verb.tag, verb.text) for verb in said] == [("Say", "Nobody <here>"), ("Hangup", None)]
