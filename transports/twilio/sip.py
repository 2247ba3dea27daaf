"""What Twilio tells of a call that came in over SIP: the headers of the invitation, as fields of the webhook. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

_HEADER: Final = "SipHeader_"
_MAX_HEADERS: Final = 64
_MAX_VALUE: Final = 1024
"""Characters; what is longer is cut."""


def sip_metadata(form: Mapping[str, str]) -> dict[str, msgspec.Raw]:
    """The call's metadata: `sip_headers`, by the names they had (`X-Customer`); empty where there are none."""
    headers = {
        name.removeprefix(_HEADER): value[:_MAX_VALUE]
        for name, value in form.items()
        if name.startswith(_HEADER) and name != _HEADER
    }
    kept = dict(list(headers.items())[:_MAX_HEADERS])
    return {"sip_headers": msgspec.Raw(msgspec.json.encode(kept))} if kept else {}
