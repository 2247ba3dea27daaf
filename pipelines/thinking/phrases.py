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

_TRANSFER = {
    "en": "One moment, I am connecting you.",
    "es": "Un momento, le comunico.",
    "fr": "Un instant, je vous mets en relation.",
    "de": "Einen Moment, ich verbinde Sie.",
    "it": "Un momento, la metto in contatto.",
    "pt": "Um momento, vou transferir a chamada.",
}


def apology(language: str) -> str:
    """What a caller hears when no answer could be made; English where we do not know the language."""
    return _in(_APOLOGY, language)


def transfer(language: str) -> str:
    """What a caller hears before being connected elsewhere, when the agent gave no words of its own."""
    return _in(_TRANSFER, language)


def _in(phrases: dict[str, str], language: str) -> str:
    return phrases.get(language.split("-")[0].lower(), phrases["en"])
