"""Who the organisations are, what they own, and how much they may do (behaviour §2)."""
