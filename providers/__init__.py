"""Speech-to-text, text-to-speech and language models, one module a vendor. Knows nothing of calls."""
