"""`voice-gateway check`: is everything there that calls need, and what is to be done where it is not."""
