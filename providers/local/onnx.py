"""The one place that touches onnxruntime, which ships without types."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

# The Linux wheels write a device id to disk and send usage data to their vendor unless told not to before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime


class _Options(Protocol):
    intra_op_num_threads: int
    inter_op_num_threads: int
    log_severity_level: int


class Model(Protocol):
    """A loaded network; `run` may be called from any thread."""

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[np.float32]]:
        """All outputs (or the named ones) for the named inputs."""
        ...


def load(path: Path) -> Model:
    """Load a network that computes on the calling thread only: more threads cost more than they give at this size."""
    options = cast(_Options, onnxruntime.SessionOptions())  # pyright: ignore[reportUnknownMemberType]
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # the smart-turn file warns about unused initialisers at every load
    return cast(
        Model, onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
    )
