"""One folder a medium: bytes and frames to audio and text, and back."""
