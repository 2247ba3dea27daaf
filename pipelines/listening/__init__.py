"""From the caller's audio to turns."""
