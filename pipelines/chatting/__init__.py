"""A conversation in text: the same mind as on a call, without ears and mouth."""
