"""The browser that other tests use."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser

from tests.chromium import chromium as chromium
from tests.chromium import open_page

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_pages_run_scripts_and_share_nothing(chromium: Browser) -> None:
    async with open_page(chromium) as page:
        assert await page.evaluate("6 * 7") == 42
        await page.route("**", lambda route: route.fulfill(body="<title>hello</title>", content_type="text/html"))
        await page.goto("http://one.test/")
        await page.evaluate("localStorage.setItem('seen', 'yes')")
    async with open_page(chromium, color_scheme="dark") as page:
        await page.route("**", lambda route: route.fulfill(body="<title>hello</title>", content_type="text/html"))
        await page.goto("http://one.test/")
        assert await page.evaluate("localStorage.getItem('seen')") is None
        assert await page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")


async def test_a_fault_in_a_page_fails_its_test(chromium: Browser) -> None:
    with pytest.raises(AssertionError, match="out of order"):
        async with open_page(chromium) as page:
            await page.evaluate("console.error('out of order')")
    async with open_page(chromium, "out of") as page:
        await page.evaluate("console.error('out of order')")


async def test_a_microphone_is_there_without_asking(chromium: Browser) -> None:
    async with open_page(chromium) as page:
        await page.route("**", lambda route: route.fulfill(body="", content_type="text/html"))
        await page.goto("http://localhost:1/")
        kinds = "navigator.mediaDevices.getUserMedia({audio: true}).then(s => s.getTracks().map(t => t.kind))"
        assert await page.evaluate(kinds) == ["audio"]
