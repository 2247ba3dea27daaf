"""The SDK socket and who owns what."""
