"""The page in docs/browser.md, as somebody copies it: opened in a browser, it talks and chats with a gateway."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.chromium import chromium as chromium
from tests.chromium import open_page
from tests.door_rig import Door, opened

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXT = (Path(__file__).parents[1] / "docs" / "browser.md").read_text(encoding="utf-8")


@contextmanager
def site(door: Door) -> Generator[str]:
    """A web server with the page of the document, and this gateway's address in it; answers the page's own."""
    found = re.search(r"^```html\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert found
    assert "http://127.0.0.1:1337" in found[1]
    body = found[1].replace("http://127.0.0.1:1337", door.url).encode()

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/" else 204)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            if self.path == "/":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing to tell."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


async def test_the_page_of_the_document_chats(chromium: Browser) -> None:
    async with opened() as door, open_page(chromium) as page:
        with site(door) as address:
            agent = await door.agent(origins=("http://localhost:*",))
            await page.goto(address)
            for said in ("hello", "and again"):
                await page.locator("#text").fill(said)
                await page.get_by_role("button", name="Send").click()
                while (frame := await agent.receive())["event"] != "chat.message":
                    pass
                assert frame["text"] == said
                await agent.send("bot.reply", call_id=frame["call_id"], message_id=said, text=f"You wrote {said}.")
                await expect(page.locator("#log")).to_contain_text(f"you: {said}")
                await expect(page.locator("#log")).to_contain_text(f"mara: You wrote {said}.")


async def test_the_page_of_the_document_talks_and_hangs_up(chromium: Browser) -> None:
    async with opened() as door, open_page(chromium) as page:
        with site(door) as address:
            agent = await door.agent(origins=("http://localhost:*",))
            await page.goto(address)
            await page.get_by_role("button", name="Talk").click()
            while (frame := await agent.receive())["event"] != "call.started":
                pass
            assert frame["transport"] == "webrtc"
            await agent.send("bot.reply", call_id=frame["call_id"], message_id="greeting", text="Hi.")
            await expect(page.locator("#log")).to_contain_text("mara: Hi.")
            await page.get_by_role("button", name="Hang up").click()
            while (frame := await agent.receive())["event"] != "call.ended":
                pass
            assert frame["reason"] == "client_hangup"


async def test_the_page_of_the_document_says_why_it_may_not(chromium: Browser) -> None:
    async with opened() as door, open_page(chromium, "403") as page:
        with site(door) as address:
            await door.agent(origins=("https://elsewhere.example",))
            await page.goto(address)
            await page.get_by_role("button", name="Talk").click()
            await expect(page.locator("#log")).to_contain_text("error: ORIGIN_NOT_ALLOWED")
