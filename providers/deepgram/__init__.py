"""Deepgram: Flux (turns of its own), Nova (words only)."""
