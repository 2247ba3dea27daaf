"""The few sentences that the gateway says in its own name, in the caller's language."""

from __future__ import annotations

_APOLOGY = {
    "en": "Sorry, I had a technical problem. Could you say that again?",
    "es": "Perdón, tuve un problema técnico. ¿Puede repetirlo?",
    "fr": "Désolé, j'ai eu un problème technique. Pouvez-vous répéter ?",
    "de": "Entschuldigung, ich hatte ein technisches Problem. Können Sie das wiederholen?",
    "it": "Mi scusi, ho avuto un problema tecnico. Può ripetere?",
    "pt": "Desculpe, tive um problema técnico. Pode repetir?",
}


def apology(language: str) -> str:
    """What a caller hears when no answer could be made; English where we do not know the language."""
    return _APOLOGY.get(language.split("-")[0].lower(), _APOLOGY["en"])
