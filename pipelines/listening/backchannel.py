"""Words that mean "I am listening", not "let me speak" (behaviour §6.6). Pure."""

from __future__ import annotations

import re

_WORDS = {
    "en": "ok okay yes yeah yep yup uh-huh uhhuh mm-hm mmhm mhm mm hmm hm right sure aha ah oh i see got it "
    "alright uh um huh",
    "es": "ok vale sí si ajá aja mm mhm hmm ah claro ya bueno eh oh entiendo",
    "fr": "ok oui ouais hum mm mhm ah d'accord bien oh euh voilà",
    "pt": "ok sim tá ta aham uhum mm mhm ah certo claro é",
    "de": "ok ja jaja mhm mm hm aha genau ach klar gut ah",
    "it": "ok sì si mhm mm ah certo va bene già eh",
}
_ACKNOWLEDGEMENTS = {language: frozenset(words.split()) for language, words in _WORDS.items()}
_ANY = frozenset(word for words in _ACKNOWLEDGEMENTS.values() for word in words)
_TOKEN = re.compile(r"[\w'-]+")


def real_words(text: str, language: str) -> int:
    """How many words of `text` are not mere acknowledgements in that language (`es-MX` reads as `es`).

    An unknown language is judged by all lists together.
    """
    known = _ACKNOWLEDGEMENTS.get(language.split("-")[0].lower(), _ANY)
    return sum(1 for token in _TOKEN.findall(text.lower()) if token not in known)
