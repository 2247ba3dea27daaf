"""Codecs, resampling, levels: pure functions and small stateful filters."""
