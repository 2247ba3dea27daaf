"""A real headless Chromium: one a test process, one fresh profile a page.

    from tests.chromium import chromium as chromium, open_page
    pytestmark = pytest.mark.asyncio(loop_scope="session")

    async def test_something(chromium: Browser) -> None:
        async with open_page(chromium) as page:
            await page.goto(…)

The browser belongs to the session's loop, hence the mark: such tests (and the gateway they start) run in real time. It
speaks into a fake microphone that beeps, nobody is asked for permissions, and sound may play without a click.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

FLAGS = (
    # Containers have no user namespaces to build the sandbox of; only our own pages are opened.
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
PATIENCE_MS = 20_000
"""How long anything in a page may take on a machine that does a lot else."""
expect.set_options(timeout=PATIENCE_MS)
MISSING = "chromium is not installed: `scripts/system_packages.sh chromium` (or `make test`) gets it"


class _Shared:
    """Modules import the fixture, so pytest takes it for as many fixtures as there are modules: all get this one."""

    stack: AsyncExitStack | None = None
    browser: Browser | None = None


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncGenerator[Browser]:
    """The browser. Without one on this machine the test fails: what it promises has not been seen."""
    if _Shared.browser is None:
        program = shutil.which("chromium")
        if program is None:
            pytest.fail(MISSING)
        stack = AsyncExitStack()
        engine = await stack.enter_async_context(async_playwright())
        _Shared.browser = await engine.chromium.launch(executable_path=program, args=list(FLAGS))
        stack.push_async_callback(_Shared.browser.close)
        _Shared.stack = stack
    yield _Shared.browser
    stack, _Shared.stack, _Shared.browser = _Shared.stack, None, None
    if stack is not None:
        await stack.aclose()


@asynccontextmanager
async def speaking_chromium(speech: Path) -> AsyncGenerator[Browser]:
    """A browser of one's own into whose microphone this WAV file speaks, once, from when a page first listens."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail(MISSING)
    microphone = f"--use-file-for-fake-audio-capture={speech}%noloop"
    async with async_playwright() as engine:
        browser = await engine.chromium.launch(executable_path=program, args=[*FLAGS, microphone])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def open_page(browser: Browser, *expected: str, **profile: Any) -> AsyncGenerator[Page]:
    """An empty page in a profile of its own; `profile` is Playwright's (`color_scheme="dark"`, `viewport={…}`).

    Nothing may have gone wrong in it at the end: an exception, an error on the console (a refusal by the content
    security policy is one) fails the test, unless its text contains one of `expected`.
    """
    context = await browser.new_context(**profile)
    context.set_default_timeout(PATIENCE_MS)
    faults: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            faults.append(message.text)

    try:
        page = await context.new_page()
        page.on("console", on_console)
        page.on("pageerror", lambda error: faults.append(str(error)))
        yield page
    finally:
        await context.close()
    unexpected = [fault for fault in faults if not any(text in fault for text in expected)]
    assert not unexpected, f"faults in the page: {unexpected}"
