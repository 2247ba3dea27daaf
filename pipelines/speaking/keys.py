"""Keys that the agent presses: their tones wait their turn in the mouth like a message, and are none."""

from __future__ import annotations

from pipelines.audio.dtmf import tones
from pipelines.ids import new_id
from pipelines.speaking.utterance import Origin, Stage, Utterance
from providers.base import AudioFormat


class Keys(Utterance):
    """Tones in the caller's ear. The user's voice does not stop them, and no `bot.*` event tells of them."""

    def __init__(self, digits: str, line: AudioFormat) -> None:
        """`digits` as `pipelines.audio.dtmf.check_keys` gives them."""
        super().__init__(new_id("dtmf"), "", Origin.CLIENT, remembered=False)
        self.digits = digits
        self.close()
        self.audio.append(tones(digits, line))
        self.synthesised = True
        self.move(Stage.SYNTHESISING)
