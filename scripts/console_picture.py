"""Takes docs/console.png: a real call on the console, in a real browser, with vendors simulated on their own wire.

PYTHONPATH=. .venv/bin/python scripts/console_picture.py [docs/console.png]
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

from playwright.async_api import async_playwright, expect

from tests.chromium import FLAGS
from tests.console_rig import TABLE, console, in_real_time
from tests.phone_rig import spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import CalledTool, Reply, Request

SAID = ("good evening a table for four on friday please", "no wait we will be five", "the garden sounds lovely")
VIEW = {"width": 1280, "height": 800}


def host(request: Request) -> Reply:
    """The restaurant's model."""
    people = 5 if "five" in request.last_user_text else 4
    if "garden" in request.last_user_text:
        return Reply("The garden it is: a table for five on Friday at eight. Whose name may I write down for that?")
    if request.body["messages"][-1]["role"] == "tool":
        return Reply(
            f"On Friday at eight I have a table for {people} by the window, and one out in the garden. Which one?"
        )
    return Reply("", (CalledTool("free_tables", f'{{"people":{people},"day":"friday"}}', f"call_{people}"),))


async def main(picture: Path) -> None:
    """One call, up to the middle of its last sentence."""
    program = shutil.which("chromium")
    async with async_playwright() as engine, in_real_time([Say(one) for one in SAID], host) as rig:
        browser = await engine.chromium.launch(executable_path=program, args=list(FLAGS))
        agent = await rig.agent("casa-verde", greeting="Casa Verde, good evening. How can I help?", **TABLE)
        await rig.agent("night-desk", "+12025550143")
        earlier, _ = await rig.call(agent)
        await agent.wait("bot.finished")
        await earlier.hang_up()
        async with console(rig, browser, viewport=VIEW, color_scheme="light") as visit:
            caller, call = await rig.call(agent)
            await agent.wait("bot.finished", call_id=call)
            for number, said in enumerate(SAID):
                caller.say(spoken(said))
                if number < 2:
                    asked = await agent.wait("llm.tool_call", call_id=call)
                    free = [{"tool_call_id": asked["tool_calls"][0]["id"], "result": {"tables": ["window", "garden"]}}]
                    await agent.send("llm.tool_result", call_id=call, msg_id=asked["msg_id"], results=free)
                if number == 0:
                    await agent.wait("bot.speaking", call_id=call)
                    await asyncio.sleep(2.6)
                elif number == 1:
                    await agent.wait("bot.finished", call_id=call)
            await expect(visit.page.locator(".line.bot.speaking .heard")).to_contain_text("garden")
            await asyncio.sleep(0.8)
            await visit.page.screenshot(path=picture)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/console.png")))
