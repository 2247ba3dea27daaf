"""The console's page in a real browser, and everything that reaches that browser written down."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, Page, Response, WebSocket
from playwright.async_api import Error as PlaywrightError

from tests.chromium import open_page
from tests.phone_rig import Rig, no_answer, running
from tests.simulators.deepgram_flux_engine import Say

TABLE: dict[str, Any] = {
    "llm": "openai:gpt-test",
    "prompt": "Take bookings.",
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "free_tables",
                "description": "Tables that are free.",
                "parameters": {"type": "object", "properties": {"people": {"type": "integer"}}},
            },
        }
    ],
}


@dataclass
class Visit:
    """One open console."""

    page: Page
    asked: list[str] = field(default_factory=list[str])
    """Addresses of all requests."""
    told: list[str] = field(default_factory=list[str])
    """Whatever came: bodies, headers and frames."""

    async def told_nothing_of(self, *secrets: str) -> None:
        """None of these has reached the browser, and none stands in the page."""
        everything = "\n".join([*self.told, await self.page.content()])
        assert len(everything) > 10_000
        assert not [secret for secret in secrets if secret in everything]


@asynccontextmanager
async def in_real_time(script: list[Say] | None = None, model: Any = no_answer, **settings: Any) -> AsyncGenerator[Rig]:
    """A gateway beside a browser. How evenly its calls are paced is judged elsewhere: here the machine is busy."""
    async with running(script, model, **settings) as rig:
        try:
            yield rig
        finally:
            for caller in rig.callers:
                await caller.hang_up()
            rig.callers.clear()


@asynccontextmanager
async def console(
    rig: Rig, browser: Browser, *expected: str, origin: str = "", **profile: Any
) -> AsyncGenerator[Visit]:
    """Open the page. `expected` as in `open_page`."""
    async with open_page(browser, *expected, **profile) as page:
        visit = Visit(page)

        async def keep(response: Response) -> None:
            # A page that is left forgets what it was still being sent; it is sent that again.
            with suppress(PlaywrightError):
                visit.told.append(str(await response.all_headers()))
                visit.told.append(await response.text())

        def follow(socket: WebSocket) -> None:
            visit.asked.append(socket.url)
            socket.on("framereceived", lambda frame: visit.told.append(str(frame)))

        page.on("request", lambda request: visit.asked.append(request.url))
        page.on("response", keep)
        page.on("websocket", follow)
        await page.goto(origin or rig.http)
        yield visit
