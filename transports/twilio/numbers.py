"""One spelling for each telephone number and SIP address, so that they can be compared and looked up. Pure."""

from __future__ import annotations

import re

_PUNCTUATION = re.compile(r"[\s\-().\u00a0\u2010-\u2015]+")
_NORTH_AMERICAN = re.compile(r"\([2-9][0-9]{2}\)[\s.\u2010-\u2015-]*[2-9][0-9]{2}[\s.\u2010-\u2015-]*[0-9]{4}")
"""An area code in parentheses and seven digits: only North America writes that, and it leaves its `+1` out."""
_DIGITS = re.compile(r"\+?[0-9]+")
_REGION = re.compile(r"\.sip(?:\.[a-z0-9-]+){1,2}\.twilio\.com$")
_PORT = re.compile(r":[0-9]+$")


def is_sip(raw: str) -> bool:
    """Whether this is a SIP address rather than a number."""
    text = _without_prefix(raw).lower()
    return text.startswith(("sip:", "sips:")) or ("@" in text and not text.startswith("client:"))


def normalise(raw: str) -> str:
    """The form to compare by: `+12025550142` for a number, `user@host` for a SIP address.

    Punctuation and a `phone:` prefix go, a missing `+` comes (`+1` for `(202) 555-0142`). Of a SIP address the scheme,
    parameters, headers, port and the region in Twilio's host names go, and case with them. Anything else
    (`client:bob`) stays, in lower case.
    """
    text = _without_prefix(raw)
    if is_sip(text):
        return _sip_address(text)
    number = _PUNCTUATION.sub("", text)
    if _NORTH_AMERICAN.fullmatch(text):
        return "+1" + number
    if _DIGITS.fullmatch(number):
        return "+" + number.removeprefix("+")
    return text.lower()


def reported(raw: str) -> str:
    """The form that events carry as `from` and `to`: numbers as `normalise` has them, SIP as `sip:user@host`."""
    return f"sip:{normalise(raw)}" if is_sip(raw) else normalise(raw)


def is_e164(number: str) -> bool:
    """Whether a normalised number is a plausible E.164 one: `+`, then 7 to 15 digits that do not begin with 0."""
    return re.fullmatch(r"\+[1-9][0-9]{6,14}", number) is not None


def _without_prefix(raw: str) -> str:
    text = raw.strip()
    return text[6:].strip() if text[:6].lower() == "phone:" else text


def _sip_address(text: str) -> str:
    address = text.lower().strip("<>")
    address = re.sub(r"^sips?:", "", address)
    user, at, host = address.partition("@") if "@" in address else ("", "", address)
    host = _PORT.sub("", re.split(r"[;?>]", host, maxsplit=1)[0])
    # User parameters (`user;phone-context=…`) and a password are no part of who is called.
    user = re.split(r"[;:]", user, maxsplit=1)[0]
    return user + at + _REGION.sub(".sip.twilio.com", host)
