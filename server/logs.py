"""Logging: one line an event, with the ids of the call and agent it belongs to. Readable on a terminal, or JSON."""

from __future__ import annotations

import logging
import sys

import structlog


def log_no_requests() -> None:
    """Whoever listens, the web server's log of requests stays empty: addresses carry tokens, keys and metadata."""
    logging.getLogger("uvicorn.access").setLevel(logging.CRITICAL)


def configure_logging(level: str, form: str) -> None:
    """`level` as in the settings, `form` console or json. Affects the whole process."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpx2", "httpcore", "httpcore2", "openai", "websockets", "asyncio", "twilio", "aioice"):
        # Request lines of HTTP clients carry addresses with keys in them, aioice's the visitors' own.
        logging.getLogger(noisy).setLevel(logging.WARNING)
