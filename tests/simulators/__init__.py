"""Stand-ins for vendors that speak the vendors' true wire, strictly."""
