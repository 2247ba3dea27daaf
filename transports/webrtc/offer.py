"""What a browser's offer must say, and what of it is taken up. Pure.

An offer is written by a stranger, so nothing of it reaches the WebRTC stack that a voice call has no use for: one audio
section and one for data channels are kept, every other one is refused in the answer without ever being opened, and of
the candidates only plain UDP addresses are tried. A name (`….local`, RFC 8828) would have to be looked up on the local
network for seconds; the browser finds us first anyway, and shows its address by doing so.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

MAX_SECTIONS: Final = 16
MAX_CANDIDATES: Final = 32
"""So many addresses a caller may have us try."""


class OfferError(ValueError):
    """The offer cannot become a call. The text is for whoever wrote the page."""


class _Fate(Enum):
    """What becomes of a media section."""

    AUDIO = auto()
    EVENTS = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class _Section:
    """One media section: its `m=` line first."""

    lines: tuple[str, ...]

    @property
    def kind(self) -> str:
        return self.lines[0].removeprefix("m=").partition(" ")[0]

    @property
    def is_open(self) -> bool:
        return self.lines[0].split(" ")[1:2] != ["0"]

    def values(self, name: str) -> list[str]:
        """What attributes of that name hold."""
        return [value for key, colon, value in map(_attribute, self.lines) if key == name and colon]

    def has(self, name: str) -> bool:
        return any(key == name for key, _, _ in map(_attribute, self.lines))


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer that can be answered. `sdp` is what the WebRTC stack gets to see of it."""

    sdp: str
    has_events: bool
    """The page wants a data channel."""
    sections: tuple[tuple[_Section, _Fate], ...]

    def complete(self, answer: str) -> str:
        """The stack's answer, with a refusal for each section that was kept from it, all in the order of the offer
        (RFC 9429 §5.3.1)."""
        session, given = _split(answer)
        kept = iter(given)
        lines = list(session)
        for section, fate in self.sections:
            lines += _refusal(section) if fate is _Fate.REFUSED else next(kept).lines
        return _join(lines)


def read_offer(sdp: str) -> Offer:
    """Raises OfferError for what no voice call can come of."""
    if not sdp.startswith("v=0"):
        raise OfferError("sdp is not a session description")
    session, sections = _split(sdp)
    if len(sections) > MAX_SECTIONS:
        raise OfferError(f"sdp has more than {MAX_SECTIONS} media sections")
    fates = _fates(sections)
    if _Fate.AUDIO not in fates:
        raise OfferError("sdp offers no audio")
    both = tuple(zip(sections, fates, strict=True))
    kept = [(section, fate) for section, fate in both if fate is not _Fate.REFUSED]
    for section, fate in kept:
        _check(section, fate, session)
    mids = {mid for section, _ in kept for mid in section.values("mid")}
    lines = [_bundled(line, mids) for line in session]
    room = MAX_CANDIDATES
    for section, _ in kept:
        wanted = [line for line in section.lines if _is_wanted(line)]
        candidates = [line for line in wanted if line.startswith("a=candidate:")]
        lines += [line for line in wanted if line not in candidates[room:]]
        room -= min(room, len(candidates))
    return Offer(_join(lines), _Fate.EVENTS in fates, both)


def _fates(sections: list[_Section]) -> list[_Fate]:
    fates: list[_Fate] = []
    for section in sections:
        fate = _Fate.REFUSED
        if section.is_open and section.kind == "audio" and _Fate.AUDIO not in fates:
            fate = _Fate.AUDIO
        elif section.is_open and section.kind == "application" and _Fate.EVENTS not in fates:
            fate = _Fate.EVENTS
        fates.append(fate)
    return fates


def _check(section: _Section, fate: _Fate, session: tuple[str, ...]) -> None:
    whole = _Section(("m=session", *session))
    for needed in ("ice-ufrag", "ice-pwd", "fingerprint"):
        if not section.has(needed) and not whole.has(needed):
            raise OfferError(f"sdp has no {needed}")
    if not section.values("mid"):
        raise OfferError("sdp has a media section without mid")
    if fate is _Fate.AUDIO:
        if not any(value.split(" ")[-1].lower().startswith("opus/48000") for value in section.values("rtpmap")):
            raise OfferError("sdp offers no Opus audio")
        if section.has("inactive") or section.has("sendonly"):
            raise OfferError("sdp offers audio that is not to be heard: it must be sendrecv")


def _is_wanted(line: str) -> bool:
    """Everything but candidates of no use to us, and the claim that there will be no others: without it the stack
    waits for the browser to come and show its address."""
    if line == "a=end-of-candidates":
        return False
    if not line.startswith("a=candidate:"):
        return True
    parts = line.split(" ")
    if len(parts) < 8 or parts[1] != "1" or parts[2].lower() != "udp" or not parts[5].isdecimal():
        return False
    try:
        address = ipaddress.ip_address(parts[4])
    except ValueError:
        return False
    return 0 < int(parts[5]) < 65536 and not address.is_multicast and not address.is_unspecified


def _bundled(line: str, mids: set[str]) -> str:
    """A bundle names only sections that are there."""
    if not line.startswith("a=group:BUNDLE"):
        return line
    head, *named = line.split(" ")
    return " ".join([head, *(mid for mid in named if mid in mids)])


def _refusal(section: _Section) -> list[str]:
    """Port 0 says no (RFC 3264 §6)."""
    parts = section.lines[0].split(" ")
    profile, formats = parts[2:3] or ["UDP/TLS/RTP/SAVPF"], parts[3:4] or ["0"]
    lines = [" ".join([parts[0], "0", *profile, *formats]), "c=IN IP4 0.0.0.0", "a=inactive"]
    return lines + [f"a=mid:{mid}" for mid in section.values("mid")[:1]]


def _split(sdp: str) -> tuple[tuple[str, ...], list[_Section]]:
    """The session's own lines, and the sections."""
    parts: list[list[str]] = [[]]
    for line in sdp.splitlines():
        stripped = line.strip()
        if stripped.startswith("m="):
            parts.append([])
        if stripped:
            parts[-1].append(stripped)
    return tuple(parts[0]), [_Section(tuple(lines)) for lines in parts[1:]]


def _join(lines: list[str]) -> str:
    return "\r\n".join(lines) + "\r\n"


def _attribute(line: str) -> tuple[str, str, str]:
    return line[2:].partition(":") if line.startswith("a=") else ("", "", "")
