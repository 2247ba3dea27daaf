"""From a turn to words: history, prompt, the server-side model."""
