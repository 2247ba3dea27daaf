"""The published web client, unmodified, in a real browser against a whole gateway (docs/web.md)."""
