"""Is it alive, may it take calls, what does it count. No key needed, nothing of any organisation shown."""

from __future__ import annotations

from typing import Protocol

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse


class Health(Protocol):
    """What the routes show."""

    @property
    def ready(self) -> bool:
        """May calls come?"""
        ...

    def exposition(self) -> bytes:
        """Metrics in Prometheus' text form."""
        ...


def health_routes(health: Health) -> APIRouter:
    """`/health`, `/ready`, `/metrics`."""
    routes = APIRouter()

    # Many who watch a service ask for its status alone.
    @routes.head("/health", include_in_schema=False)
    @routes.get("/health")
    async def alive() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "ok"}

    @routes.head("/ready", include_in_schema=False)
    @routes.get("/ready")
    async def ready() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        if health.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready"}, status_code=503)

    @routes.get("/metrics")
    async def metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(health.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes
