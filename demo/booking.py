"""The restaurant host's mind: takes a table booking from whatever the caller says. Pure.

Every reply comes out of the words that were recognised; nothing is scripted. `Host.hear(text)` answers one turn.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum, auto

_NUMBERS = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve".split(),  # noqa: SIM905
    )
}
_NUMBERS["a couple"] = 2
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "today", "tonight", "tomorrow")
_HOUR = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\d{1,2})"
_PARTY = re.compile(rf"\b(?:for|party of|we are|we're|us)\s+({_HOUR}|a couple)\b(?!\s*(?:o'?clock|p\.?m|thirty))")
_PEOPLE = re.compile(rf"\b({_HOUR})\s+(?:people|persons|guests|of us)\b")
_TIME = re.compile(rf"\bat\s+({_HOUR})(\s+thirty|:30|\s+fifteen|:15|\s+forty five|:45)?(?:\s*(?:o'?clock|p\.?m\.?))?")
_BARE = re.compile(rf"^\s*({_HOUR})(\s+thirty)?(?:\s*(?:o'?clock|p\.?m\.?))?\s*(?:please)?[.!]?\s*$")
_YES = re.compile(r"\b(?:yes|yeah|yep|correct|right|perfect|great|please do|that's it)\b")
_NO = re.compile(r"\b(?:no|nope|wrong|not)\b")
_BYE = re.compile(r"\b(?:bye|goodbye|thank you|thanks)\b")


class Asked(Enum):
    """What the host asked last, which is how a bare "four" is understood."""

    NOTHING = auto()
    PARTY = auto()
    DAY = auto()
    TIME = auto()
    CONFIRM = auto()


@dataclass(slots=True)
class Booking:
    """What is known so far."""

    party: int | None = None
    day: str | None = None
    time: str | None = None
    confirmed: bool = False

    @property
    def complete(self) -> bool:
        """Nothing left to ask."""
        return None not in (self.party, self.day, self.time)

    def __str__(self) -> str:
        """For people."""
        return f"table for {self.party}, {self.day} at {self.time}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say, and whether the call is done after it."""

    text: str
    over: bool = False


@dataclass(slots=True)
class Host:
    """One conversation."""

    booking: Booking = field(default_factory=Booking)
    _asked: Asked = Asked.NOTHING

    def greeting(self) -> str:
        """First words."""
        self._asked = Asked.NOTHING
        return "Casa Verde, good evening. How can I help you?"

    def hear(self, text: str) -> Answer:
        """Answer one turn of the caller."""
        said = text.lower().strip()
        if self._asked is Asked.CONFIRM:
            if _NO.search(said):
                self.booking = Booking()
                found = self._fill(said)
                return self._next("I am sorry. " if not found else "Let me correct that. ")
            if _YES.search(said):
                self.booking.confirmed = True
                self._asked = Asked.NOTHING
                return Answer(f"Your {self.booking} is booked. Thank you, and goodbye!", over=True)
        if self.booking.confirmed or (_BYE.search(said) and not self.booking.complete):
            return Answer("Thank you for calling. Goodbye!", over=True)
        found = self._fill(said)
        return self._next("" if found else "Sorry, I did not catch that. ")

    def _next(self, opening: str) -> Answer:
        booking = self.booking
        if booking.party is None:
            self._asked = Asked.PARTY
            return Answer(f"{opening}For how many people?")
        if booking.day is None:
            self._asked = Asked.DAY
            return Answer(f"{opening}For {booking.party}. Which day would you like to come?")
        if booking.time is None:
            self._asked = Asked.TIME
            return Answer(f"{opening}{booking.day.capitalize()}. At what time?")
        self._asked = Asked.CONFIRM
        return Answer(f"{opening}So that is a {booking}. Is that right?")

    def _fill(self, said: str) -> bool:
        """Take what the words say; True when anything was understood."""
        before = (self.booking.party, self.booking.day, self.booking.time)
        self._fill_day(said)
        self._fill_time(said)
        self._fill_party(said)
        return before != (self.booking.party, self.booking.day, self.booking.time)

    def _fill_day(self, said: str) -> None:
        day = next((day for day in _DAYS if re.search(rf"\b{day}\b", said)), None)
        if day is not None:
            self.booking.day = day

    def _fill_time(self, said: str) -> None:
        found = _TIME.search(said) or (_BARE.match(said) if self._asked is Asked.TIME else None)
        if found is not None:
            minutes = {"thirty": "30", ":30": "30", "fifteen": "15", ":15": "15"}.get((found[2] or "").strip(), "")
            hour = _number(found[1])
            self.booking.time = f"{hour} {minutes}".strip() if minutes else f"{hour} o'clock"

    def _fill_party(self, said: str) -> None:
        found = _PARTY.search(said) or _PEOPLE.search(said)
        if found is None and self._asked is Asked.PARTY:
            found = _BARE.match(said)
        if found is not None:
            self.booking.party = _number(found[1])


def _number(word: str) -> int:
    return int(word) if word.isdigit() else _NUMBERS[word]
