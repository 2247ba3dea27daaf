"""A small agent and a telephone in software."""
