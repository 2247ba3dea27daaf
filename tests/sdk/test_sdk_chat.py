"""Pages chat with apps written with unmodified SDK builds: the token comes from the SDK, the answers reach the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chat_rig import ChatRig, Page, chatting
from tests.phone_rig import KEY
from tests.sdk.node_app import NodeApp, node_app
from tests.simulators.openai import CalledTool, Reply, Request

CONFIG = {"voice": "elevenlabs:voice-1", "stt": "deepgram-flux"}
MODEL: dict[str, Any] = {"engine": "openai", "model": "gpt-4.1-mini", "enabled": True, "prompt": "You find bookings."}
SEALED = {"userId": "u-1", "plan": "gold"}


def find_first(request: Request) -> Reply:
    """A model that looks a booking up and then greets its guest."""
    results = [entry["content"] for entry in request.body["messages"] if entry["role"] == "tool"]
    if not results:
        return Reply("Let me look.", [CalledTool("findBooking", '{"code":"A1"}', "call_1")])
    return Reply("I found it, Ada." if "Ada" in results[0] else results[0])


async def page_of(rig: ChatRig, app: NodeApp) -> Page:
    """A page with a token that the app's backend asked for."""
    token = await app.order("token", metadata=SEALED)
    assert token["server"] == rig.gateway.http
    assert (token.get("expiresIn") or token["expires_in"]) == 60
    page = await rig.open(token["token"])
    await page.wait("chat.connected")
    return page


@pytest.mark.proves("row-130", "web-30", "web-32")
async def test_a_page_chats_with_an_app_that_has_the_tool(sdk: Path) -> None:
    config = {**CONFIG, "llm": MODEL}
    async with (
        chatting(find_first) as rig,
        node_app("chat", sdk, rig.gateway.http, KEY, config=config) as app,
    ):
        first_era = await app.order("isFirstEra")
        page = await page_of(rig, app)
        started = await app.wait("chat.started")
        assert started["call"] == page.of("chat.connected")[0]["session_id"]
        assert started["transport"] == "chat"
        assert started["metadata"] == ({} if first_era else SEALED)
        assert await page.ask("Find A1") == "Let me look.\n\nI found it, Ada."
        assert (await app.wait("tool"))["code"] == "A1"
        assert page.of("chat.tool_call")[0]["tool_calls"][0]["name"] == "findBooking"
        assert page.of("chat.tool_result")[0]["result"] == {"found": True, "guest": "Ada"}
        await page.socket.close()
        if first_era:
            assert (await app.wait("raw ended"))["call"] == started["call"]
        else:
            assert (await app.wait("call.ended"))["reason"] == "chat_completed"
            record = await app.wait("record")
            assert [entry["role"] for entry in record["messages"] if entry["role"] != "system"] == [
                "user",
                "assistant",
                "tool",
                "assistant",
            ]
        assert app.count("tool") == 1
        assert app.count("chat.started") == 1
        assert app.count("call.started") == 0


@pytest.mark.proves("row-130")
async def test_a_page_chats_with_an_app_that_thinks_for_itself(sdk: Path) -> None:
    async with (
        chatting() as rig,
        node_app("chat", sdk, rig.gateway.http, KEY, config=CONFIG) as app,
    ):
        if await app.order("isFirstEra"):
            pytest.skip("chats of 0.1.x have no way to send")
        page = await page_of(rig, app)
        assert await page.ask("Hello") == "You wrote Hello."
        assert (await app.wait("user.message"))["text"] == "Hello"
        assert (await app.wait("bot.speaking"))["text"] == "You wrote Hello."
        assert await page.ask("Stream") == "One two three."
        assert [frame["text"] for frame in page.of("chat.token")[1:]] == ["One", "One two", "One two three."]
        await page.socket.close()
        record = await app.wait("record")
        assert [entry["content"] for entry in record["messages"]] == [
            "Hello",
            "You wrote Hello.",
            "Stream",
            "One two three.",
        ]
