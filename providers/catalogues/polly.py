"""Voices of Amazon Polly that have a neural or standard engine. They change by the year, so the list is kept here."""

from __future__ import annotations

from providers.catalogues.catalogue import CatalogueVoice, with_aliases
from providers.catalogues.languages import spoken

_FEMALE = """
arb Zeina|ar-AE Hala|ca-ES Arlet|cs-CZ Jitka|da-DK Naja Sofie|de-AT Hannah|de-CH Sabrina|de-DE Marlene Vicki
en-AU Nicole Olivia|en-GB Amy Emma|en-IE Niamh|en-IN Aditi Raveena Kajal|en-NZ Aria|en-SG Jasmine
en-US Danielle Ivy Joanna Kendra Kimberly Ruth Salli|en-ZA Ayanda|es-ES Conchita Lucia|es-MX Mia
es-US Lupe Penelope|fi-FI Suvi|fr-BE Isabelle|fr-CA Chantal Gabrielle|fr-FR Celine Lea|hi-IN Aditi Kajal
is-IS Dora|it-IT Carla Bianca|ja-JP Mizuki Kazuha Tomoko|ko-KR Seoyeon Jihye|nb-NO Liv Ida|nl-BE Lisa|nl-NL Lotte Laura
pl-PL Ewa Maja Ola|pt-BR Camila Vitoria|pt-PT Ines|ro-RO Carmen|ru-RU Tatyana|sv-SE Astrid Elin|tr-TR Filiz Burcu
cmn-CN Zhiyu|cy-GB Gwyneth|yue-CN Hiujin"""
_MALE = """
ar-AE Zayd|da-DK Mads|de-DE Hans Daniel|en-AU Russell|en-GB Brian Arthur|en-GB-WLS Geraint
en-US Gregory Joey Justin Kevin Matthew Stephen|es-ES Enrique Sergio|es-MX Andres|es-US Miguel Pedro|fr-CA Liam
fr-FR Mathieu Remi|is-IS Karl|it-IT Giorgio Adriano|ja-JP Takumi|nl-NL Ruben|pl-PL Jacek Jan|pt-BR Ricardo Thiago
pt-PT Cristiano|ru-RU Maxim"""


def _voices() -> tuple[CatalogueVoice, ...]:
    found: dict[str, CatalogueVoice] = {}
    for gender, table in (("female", _FEMALE), ("male", _MALE)):
        for line in table.replace("\n", "|").strip("|").split("|"):
            locale, *names = line.split()
            for name in names:
                spoke = found[name].languages if name in found else ()
                languages = (*spoke, spoken(locale))
                found[name] = CatalogueVoice(id=name, name=name, provider="polly", gender=gender, languages=languages)
    return with_aliases(found.values(), {})


POLLY_VOICES = _voices()


async def polly_voices() -> tuple[CatalogueVoice, ...]:
    """All of them; nobody need be asked."""
    return POLLY_VOICES
