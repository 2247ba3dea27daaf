"""Where the model files of the built-in engines lie. `scripts/fetch_models.py` puts them there."""

from __future__ import annotations

import os
from pathlib import Path

from providers.errors import Unavailable

SILERO_VAD = "silero_vad.onnx"
SMART_TURN = "smart-turn-v3.2-cpu.onnx"


def models_dir() -> Path:
    """The folder of the model files: VOICE_MODELS_DIR, else `models/` beside the packages."""
    return Path(os.environ.get("VOICE_MODELS_DIR") or Path(__file__).resolve().parents[2] / "models")


def model_path(name: str) -> Path:
    """The file of a model. Raises Unavailable that says how to get it."""
    path = models_dir() / name
    if not path.is_file():
        raise Unavailable(
            f"{name} is not in {path.parent}: run `make models` (python scripts/fetch_models.py)",
            vendor="local",
            code="CONFIG_ERROR",
        )
    return path
