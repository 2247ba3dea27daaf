"""The voices of the built-in speech, as this machine's espeak-ng lists them."""

from __future__ import annotations

import asyncio
import contextlib

from providers.catalogues.catalogue import CatalogueVoice, with_aliases
from providers.catalogues.languages import spoken
from providers.catalogues.reading import CODE
from providers.errors import TimedOut, Unavailable

DEADLINE = 5.0
"""Seconds for the program to answer."""
_GENDERS = {"M": "male", "F": "female"}
_COLUMNS = 5


async def espeak_voices(program: str = "espeak-ng") -> tuple[CatalogueVoice, ...]:
    """All of them. Raises ProviderError when the program is not there or hangs."""
    pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(program, "--voices", stdin=none, stdout=pipe, stderr=none)
    except OSError as error:
        text = f"{program} does not start: {type(error).__name__}"
        raise Unavailable(text, vendor="local", code=CODE) from None
    try:
        async with asyncio.timeout(DEADLINE):
            output, _ = await process.communicate()
    except TimeoutError:
        raise TimedOut(f"{program} took more than {DEADLINE:g} s", vendor="local", code=CODE) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
    return read_table(output.decode(errors="replace"))


def read_table(table: str) -> tuple[CatalogueVoice, ...]:
    """Its columns: priority, language, age/gender, name, file, other languages. The language is what it answers to."""
    found: dict[str, CatalogueVoice] = {}
    for line in table.splitlines()[1:]:
        columns = line.split()
        if len(columns) < _COLUMNS:
            continue
        _, code, who, name, *_ = columns
        found.setdefault(
            code,
            CatalogueVoice(
                id=code,
                name=name.replace("_", " "),
                provider="local",
                gender=_GENDERS.get(who.rpartition("/")[2]),
                languages=(spoken(code),),
            ),
        )
    # Its names share their first words ("English (America)"), so the code is what one writes.
    return with_aliases(found.values(), {code: code for code in found})
