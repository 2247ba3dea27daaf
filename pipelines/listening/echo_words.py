"""The bot's own words among those that a recogniser heard on the caller's line. Pure."""

from __future__ import annotations

from dataclasses import replace

from providers.base import NativeTurn, Transcript, TurnMoment


class EchoWords:
    """Takes the bot's words out of what was recognised: those that came while nobody else was heard, and whatever of
    them is repeated later in the same segment or turn. `alone`: nobody but the bot was heard."""

    def __init__(self) -> None:
        self._bots: list[str] = []
        self._turn = -1

    def transcript(self, heard: Transcript, *, alone: bool) -> Transcript:
        """What somebody else said of it, perhaps nothing."""
        text = self._others(heard.text, alone=alone)
        if heard.is_final:
            self._bots = []
        return heard if text == heard.text else replace(heard, text=text)

    def turn(self, heard: NativeTurn, *, alone: bool) -> NativeTurn | None:
        """What somebody else said of it; None when that is nothing and was nothing all the time."""
        text = self._others(heard.text, alone=alone)
        passed = bool(text) or not alone or heard.turn_index == self._turn
        if heard.moment is TurnMoment.END:
            self._bots = []
        if not passed:
            return None
        self._turn = heard.turn_index
        return heard if text == heard.text else replace(heard, text=text)

    def _others(self, text: str, *, alone: bool) -> str:
        words = text.split()
        if alone:
            self._bots = words
            return ""
        same = 0
        for mine, bots in zip(words, self._bots, strict=False):
            if _bare(mine) != _bare(bots):
                break
            same += 1
        return " ".join(words[same:]) if same else text


def _bare(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())
