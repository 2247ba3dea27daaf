"""Text chat with a page in a browser."""
