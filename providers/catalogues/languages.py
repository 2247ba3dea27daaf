"""Languages as people read them: English name, own name, flag."""

from __future__ import annotations

from dataclasses import dataclass

_TABLE = """
ar SA Arabic|العربية
bg BG Bulgarian|Български
bn BD Bengali|বাংলা
ca ES Catalan|Català
cs CZ Czech|Čeština
cy GB Welsh|Cymraeg
da DK Danish|Dansk
de DE German|Deutsch
el GR Greek|Ελληνικά
en US English|English
es ES Spanish|Español
et EE Estonian|Eesti
eu ES Basque|Euskara
fa IR Persian|فارسی
fi FI Finnish|Suomi
fil PH Filipino|Filipino
fr FR French|Français
ga IE Irish|Gaeilge
gl ES Galician|Galego
gu IN Gujarati|ગુજરાતી
he IL Hebrew|עברית
hi IN Hindi|हिन्दी
hr HR Croatian|Hrvatski
hu HU Hungarian|Magyar
id ID Indonesian|Bahasa Indonesia
is IS Icelandic|Íslenska
it IT Italian|Italiano
ja JP Japanese|日本語
ka GE Georgian|ქართული
kn IN Kannada|ಕನ್ನಡ
ko KR Korean|한국어
lt LT Lithuanian|Lietuvių
lv LV Latvian|Latviešu
mk MK Macedonian|Македонски
ml IN Malayalam|മലയാളം
mr IN Marathi|मराठी
ms MY Malay|Bahasa Melayu
nb NO Norwegian|Norsk bokmål
nl NL Dutch|Nederlands
no NO Norwegian|Norsk
pa IN Punjabi|ਪੰਜਾਬੀ
pl PL Polish|Polski
pt PT Portuguese|Português
ro RO Romanian|Română
ru RU Russian|Русский
sk SK Slovak|Slovenčina
sl SI Slovenian|Slovenščina
sr RS Serbian|Српски
sv SE Swedish|Svenska
sw KE Swahili|Kiswahili
ta IN Tamil|தமிழ்
te IN Telugu|తెలుగు
th TH Thai|ไทย
tl PH Tagalog|Tagalog
tr TR Turkish|Türkçe
uk UA Ukrainian|Українська
ur PK Urdu|اردو
vi VN Vietnamese|Tiếng Việt
zh CN Chinese|中文
"""
_LANGUAGES = {
    code: (region, *names.split("|"))
    for code, region, names in (line.split(maxsplit=2) for line in _TABLE.strip().splitlines())
}
_INDICATOR = 0x1F1E6 - ord("A")


@dataclass(frozen=True, slots=True)
class SpokenLanguage:
    """`code` is a language (`es`) or a locale (`es-MX`); `region` two letters, empty where nobody says one."""

    code: str
    name: str
    native_name: str = ""
    region: str = ""

    @property
    def flag(self) -> str:
        """Of the region; empty without one."""
        return "".join(chr(ord(letter) + _INDICATOR) for letter in self.region)


def spoken(code: str, locale: str = "") -> SpokenLanguage:
    """The language of a code. The region is that of `locale`, of the code itself, or the one usually meant."""
    base = code.partition("-")[0].lower()
    usual, name, native = _LANGUAGES.get(base, ("", code, ""))
    return SpokenLanguage(code, name, native, _region(locale) or _region(code) or ("" if "-" in code else usual))


def _region(tag: str) -> str:
    """The two letters after the language, if there are any."""
    for part in tag.split("-")[1:]:
        if len(part) == 2 and part.isascii() and part.isalpha():
            return part.upper()
    return ""
