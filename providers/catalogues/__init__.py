"""Which voices a vendor has."""
