"""Catalogues of voices: read from the vendors' wires, kept, and looked up when a call begins."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from elevenlabs import ElevenLabs

from providers.catalogues.cartesia import cartesia_voices
from providers.catalogues.catalogue import CatalogueVoice, VoiceSource, alias_of, with_aliases
from providers.catalogues.elevenlabs import elevenlabs_voices
from providers.catalogues.espeak import espeak_voices, read_table
from providers.catalogues.languages import spoken
from providers.catalogues.polly import POLLY_VOICES
from providers.errors import ProviderError, Refused, Unavailable
from server.voices import KEPT_SECONDS, RETRY_SECONDS, Voices
from tests.phone_rig import running
from tests.simulators.cartesia_voices import CartesiaVoicesSimulator
from tests.simulators.elevenlabs import ElevenLabsSimulator
from wire.config import ElevenLabsVoice
from wire.engines import ELEVENLABS_ALIASES
from wire.layers import Layer
from wire.resolve import ServerDefaults, normalise, resolve

SARAH = ELEVENLABS_ALIASES["sarah"]


def elevenlabs_voice(voice_id: str, name: str, **more: object) -> dict[str, Any]:
    """As the vendor lists it."""
    return {"voice_id": voice_id, "name": name, "category": "premade", "labels": {}, "preview_url": None, **more}


NADIA = elevenlabs_voice(
    "v_9f31ab",
    "Nadia - Calm, Narration",
    labels={"gender": "female", "descriptive": "very_calm", "use_case": "narration", "language": "es"},
    description="Low and steady",
    preview_url="https://cdn.example/nadia.mp3",
    verified_languages=[
        {"language": "es", "model_id": "m1", "accent": "peninsular", "locale": "es-ES", "preview_url": None},
        {"language": "es", "model_id": "m2", "accent": "peninsular", "locale": "es-ES", "preview_url": None},
        {"language": "fr", "model_id": "m1", "accent": None, "locale": None, "preview_url": None},
    ],
)


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("Nadia - Calm, Narration", "nadia"),
        ("Nadia \u2013 Calm", "nadia"),
        ("Old Man Tom", "old"),
        ("Dr. Renée", "rene"),
        ("Mrs O'Hara - Stern", "ohara"),
        ("prof. Ada Lovelace", "lovelace"),
        ("Mr", "mr"),
        ("日本", "voice"),
        ("  ", "voice"),
        ("X-Ray", "xray"),
    ],
)
def test_a_short_name_is_made_as_the_command_line_makes_it(name: str, alias: str) -> None:
    assert alias_of(name) == alias


def test_short_names_are_unique_and_famous_ones_stay_with_their_voice() -> None:
    called = ["Tom", "Tom - loud", "Tom 2", "Sarah - my clone"]
    voices = [CatalogueVoice(id=f"v{n}", name=name, provider="elevenlabs") for n, name in enumerate(called)]
    voices.append(CatalogueVoice(id=SARAH, name="Sarah", provider="elevenlabs"))
    assert [voice.alias for voice in with_aliases(voices, ELEVENLABS_ALIASES)] == [
        "tom",
        "tom-2",
        "tom-3",
        "sarah-2",
        "sarah",
    ]


def test_thousands_of_one_name_are_numbered_without_searching() -> None:
    known = {"tom-3": "elsewhere"}
    voices = [CatalogueVoice(id=f"v{n}", name="Tom", provider="elevenlabs") for n in range(30_000)]
    named = [voice.alias for voice in with_aliases(voices, known)]  # searching for each would take minutes
    assert named[:4] == ["tom", "tom-2", "tom-4", "tom-5"]
    assert named[-1] == "tom-30001"


def test_languages_have_a_region_and_its_flag_where_one_is_known() -> None:
    assert (spoken("es").flag, spoken("es", "es-MX").region, spoken("en-gb-scotland").region) == ("🇪🇸", "MX", "GB")
    assert (spoken("es-419").flag, spoken("tlh").name, spoken("es").native_name) == ("", "tlh", "Español")


async def test_elevenlabs_voices_come_from_all_pages() -> None:
    others = [elevenlabs_voice(f"v{n}", f"Voice{n}") for n in range(230)]
    async with ElevenLabsSimulator(catalogue=[NADIA, *others, NADIA]) as vendor:
        voices = await elevenlabs_voices(vendor.key, vendor.base_url)
    assert len(voices) == 231
    nadia = voices[0]
    assert (nadia.id, nadia.alias, nadia.gender, nadia.style) == ("v_9f31ab", "nadia", "female", "very calm")
    assert [(one.code, one.region) for one in nadia.languages] == [("es", "ES"), ("fr", "FR")]
    assert nadia.preview_url == "https://cdn.example/nadia.mp3"
    assert nadia.speaks("ES")
    assert not nadia.speaks("de")


async def test_the_simulated_list_convinces_the_vendors_own_package() -> None:
    async with ElevenLabsSimulator(catalogue=[NADIA, elevenlabs_voice("v2", "Tom")]) as vendor:

        def talk() -> None:
            client = ElevenLabs(api_key=vendor.key, base_url=vendor.base_url)
            page = client.voices.search(page_size=1)
            assert (page.voices[0].voice_id, page.has_more, page.total_count) == ("v_9f31ab", True, 2)
            languages = page.voices[0].verified_languages
            assert languages is not None
            assert languages[0].locale == "es-ES"
            rest = client.voices.search(page_size=1, next_page_token=page.next_page_token)
            assert (rest.voices[0].name, rest.has_more) == ("Tom", False)

        await asyncio.to_thread(talk)


async def test_cartesia_voices_come_from_all_pages() -> None:
    voices = [
        {"id": f"c{n}", "name": f"Lola {n}", "gender": "feminine", "language": "es", "preview_file_url": f"p{n}"}
        for n in range(150)
    ]
    async with CartesiaVoicesSimulator(voices=voices).running() as vendor:
        found = await cartesia_voices(vendor.key, vendor.base_url)
        with pytest.raises(Refused):
            await cartesia_voices("wrong", vendor.base_url)
    assert len(found) == 150
    assert (found[0].gender, found[0].alias, found[149].alias) == ("female", "lola", "lola-150")
    assert (found[0].preview_url, found[0].languages[0].native_name) == ("p0", "Español")


def test_polly_has_a_voice_for_each_language_a_configuration_defaults_to() -> None:
    names = {voice.id: voice for voice in POLLY_VOICES}
    assert {"Amy", "Lucia", "Lupe", "Mia", "Lea", "Vicki", "Bianca", "Camila", "Joanna"} <= names.keys()
    assert [language.code for language in names["Aditi"].languages] == ["en-IN", "hi-IN"]
    assert names["Matthew"].gender == "male"


async def test_built_in_voices_are_those_of_the_machine() -> None:
    voices = {voice.id: voice for voice in await espeak_voices()}
    assert voices["en-gb"].alias == "en-gb"
    assert voices["es"].speaks("es")
    with pytest.raises(Unavailable):
        await espeak_voices("no-such-program")


def test_a_table_with_strange_lines_gives_the_voices_it_has() -> None:
    table = (
        "Pty Language Age/Gender VoiceName File Other\n\n 5 de --/F German gmw/de\n 5 xx\n 5 de --/M German2 gmw/x\n"
    )
    (german,) = read_table(table)
    assert (german.id, german.name, german.gender) == ("de", "German", "female")


# --- the lists of a process ---


class Hands:
    """A clock that somebody moves, and a vendor that is told what to answer."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.asked = 0
        self.error: ProviderError | None = None
        self.names = ["Nadia - Calm"]
        self.gate = asyncio.Event()
        self.gate.set()

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    def source(self, provider: str, key: str) -> VoiceSource | None:
        return functools.partial(self.read, key) if provider == "elevenlabs" else None

    async def read(self, key: str = "") -> tuple[CatalogueVoice, ...]:
        self.asked += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        voices = [CatalogueVoice(id=f"{key}id-of-{name[:5]}", name=name, provider="elevenlabs") for name in self.names]
        return with_aliases(voices, {})


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
async def voices(hands: Hands) -> AsyncGenerator[Voices]:
    kept = Voices(hands.source, hands)
    yield kept
    await kept.aclose()


OUTAGE = Unavailable("elevenlabs answered 503", vendor="elevenlabs", code="VOICES_UNAVAILABLE")


async def test_a_list_is_kept_for_ten_minutes_and_more(hands: Hands, voices: Voices) -> None:
    await voices.of("elevenlabs")
    hands.time += 10 * 60
    await voices.of("elevenlabs")
    assert hands.asked == 1
    hands.time += KEPT_SECONDS
    await voices.of("elevenlabs")
    assert hands.asked == 2


async def test_many_who_ask_at_once_are_one_request(hands: Hands, voices: Voices) -> None:
    hands.gate.clear()
    asking = [asyncio.create_task(voices.of("elevenlabs")) for _ in range(100)]
    await asyncio.sleep(0)
    asking[0].cancel()
    hands.gate.set()
    lists = await asyncio.gather(*asking[1:])
    assert hands.asked == 1
    assert all(len(one) == 1 for one in lists)


async def test_an_old_list_is_better_than_none(hands: Hands, voices: Voices) -> None:
    await voices.of("elevenlabs")
    hands.time += KEPT_SECONDS
    hands.error = OUTAGE
    assert [voice.alias for voice in await voices.of("elevenlabs")] == ["nadia"]
    assert [voice.alias for voice in await voices.of("elevenlabs")] == ["nadia"]
    assert hands.asked == 2, "a vendor in trouble is left alone for a while"
    hands.time += RETRY_SECONDS
    hands.error, hands.names = None, ["Tom"]
    assert [voice.alias for voice in await voices.of("elevenlabs")] == ["tom"]


async def test_without_any_list_the_failure_is_told(hands: Hands, voices: Voices) -> None:
    hands.error = OUTAGE
    for _ in range(2):
        with pytest.raises(ProviderError):
            await voices.of("elevenlabs")
    assert hands.asked == 1
    assert await voices.of("nobody") == ()


async def test_a_failure_does_not_remember_everybody_it_was_told_to(hands: Hands, voices: Voices) -> None:
    hands.error = OUTAGE
    depths: list[int] = []
    for _ in range(20):
        with pytest.raises(ProviderError) as told:
            await voices.of("elevenlabs")
        depths.append(len(told.traceback))
    assert len(set(depths[1:])) == 1


async def test_a_fault_of_ours_is_a_failure_like_any_other(hands: Hands, voices: Voices) -> None:
    hands.names = [None]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ProviderError):
        await voices.of("elevenlabs")


def _configured(voice: str) -> Any:
    return resolve(
        [Layer(normalise({"voice": voice}))], ServerDefaults(keys=frozenset({"elevenlabs", "deepgram-flux"}))
    )


async def test_a_short_name_is_fetched_when_first_named_and_known_when_the_call_comes(
    hands: Hands, voices: Voices
) -> None:
    config = _configured("elevenlabs/nadia")
    assert voices.settle(config) is config, "an agent registers whether its voice is known or not"
    await voices.of("elevenlabs")
    assert voices.settle(config).voice == ElevenLabsVoice(voice_id="id-of-Nadia", language="en")
    assert voices.settle(_configured("elevenlabs/NADIA")).voice.voice_id == "id-of-Nadia"
    assert voices.settle(_configured("elevenlabs/stranger")).voice.voice_id == "stranger"
    assert hands.asked == 1


async def test_an_account_of_ones_own_has_a_list_of_its_own(hands: Hands, voices: Voices) -> None:
    own = {"elevenlabs": "own-"}
    assert [voice.id for voice in await voices.of("elevenlabs", own)] == ["own-id-of-Nadia"]
    assert [voice.id for voice in await voices.of("elevenlabs")] == ["id-of-Nadia"]
    config = _configured("elevenlabs/nadia")
    assert voices.settle(config, own).voice.voice_id == "own-id-of-Nadia"
    assert voices.settle(config).voice.voice_id == "id-of-Nadia"
    for number in range(600):
        await voices.of("elevenlabs", {"elevenlabs": str(number)})
    assert [voice.id for voice in await voices.of("elevenlabs", {"elevenlabs": "599"})] == ["599id-of-Nadia"]


async def test_an_id_or_a_famous_name_asks_nobody(hands: Hands, voices: Voices) -> None:
    for voice in ("elevenlabs/sarah", f"elevenlabs:{SARAH}", "elevenlabs:EXAVITQu4vr4xnSDxMaX"):
        voices.settle(_configured(voice))
    await asyncio.sleep(0)
    assert hands.asked == 0


@pytest.mark.proves("row-81")
async def test_a_call_is_spoken_with_the_voice_a_short_name_stands_for() -> None:
    async with running() as rig:
        rig.vendors.voice.catalogue = [NADIA]
        rig.vendors.voice.voices.add("v_9f31ab")
        agent = await rig.agent(voice="elevenlabs/nadia", greeting="Good evening.")
        await rig.gateway.voices.of("elevenlabs")
        await rig.call(agent)
        await agent.wait("bot.speaking")
        assert {connection.voice for connection in rig.vendors.voice.connections} == {"v_9f31ab"}
