"""Voice from a browser: WebRTC on aiortc."""
