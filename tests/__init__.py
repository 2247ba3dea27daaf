"""Promises, by name."""
