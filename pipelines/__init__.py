"""One call's life: listening, turn taking, dialogue, speaking, limits. Knows no vendor and no medium."""
