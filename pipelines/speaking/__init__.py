"""From words to audio that was heard."""
