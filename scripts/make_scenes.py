"""The corpus of scenes (docs/scenes.md): make its sounds, listen to it, score it.

python -m scripts.make_scenes                     speak everything that is missing in var/scenes/, list the scenes
python -m scripts.make_scenes --wav DIR [FAMILY]  perform scenes and write each as a WAV: caller left, bot right
python -m scripts.make_scenes --score             perform all, write tests/scenes/score.json and docs/scenes.md
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from demo.telephone import stereo_wav
from tests.scenes.corpus import Ears, Scene, families
from tests.scenes.score import BEGIN, END, FILE, PAGE, Floor, run, table, take
from tests.scenes.sounds import BOT_VOICES, CACHE, VOICES, noise, speech


def page_with(page: str, score: Floor) -> str:
    """The page with that score in its table."""
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    return f"{page[:start]}\n{table(score)}\n\nTaken with {score.espeak}.\n{page[end:]}"


def make(scene: Scene) -> float:
    """Make all sounds of a scene; seconds of the caller's."""
    seconds = 0.0
    for text in (scene.greeting, *scene.replies):
        if text:
            speech(text, BOT_VOICES[scene.language], 165)
    for sound in scene.sounds:
        if sound.noise:
            samples = noise(sound.noise)
        else:
            samples = speech(sound.text, sound.voice or VOICES[scene.language], sound.speed, sound.pitch)
        seconds += len(samples) / 8000
    return seconds


def listing() -> Iterator[str]:
    """Every scene, made."""
    for name, family in families().items():
        yield f"{name}: {family.about}"
        for scene in family.scene:
            yield f"  {scene.language}  {make(scene):5.1f} s  {scene.name}"


def write_wavs(folder: Path, wanted: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in families():
        if wanted not in (None, name):
            continue
        for ears in Ears:
            for performance in run(name, ears)[1]:
                title = re.sub(r"\W+", "-", performance.scene.name).strip("-")
                wav = stereo_wav(performance.said, performance.heard)
                (folder / f"{name}-{title}-{ears}.wav").write_bytes(wav)


def main() -> None:
    options = argparse.ArgumentParser(description="The corpus of scenes.")
    options.add_argument("--wav", type=Path, metavar="DIR", help="perform scenes and write them there")
    options.add_argument("--score", action="store_true", help="perform all and keep the score")
    options.add_argument("family", nargs="?", choices=sorted(families()), help="only this one, with --wav")
    chosen = options.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if chosen.score:
        score = take()
        FILE.write_bytes(msgspec.json.format(msgspec.json.encode(score), indent=1) + b"\n")
        PAGE.write_text(page_with(PAGE.read_text(), score))
        print(table(score))
    elif chosen.wav is not None:
        write_wavs(chosen.wav, chosen.family)
    else:
        print("\n".join(listing()))
        print(f"\nkept in {CACHE}")


if __name__ == "__main__":
    main()
