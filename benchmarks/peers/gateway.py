"""The gateway itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.peers.models import Model
from benchmarks.peers.server import Server
from benchmarks.support.servers import PORT, ServerCommand
from mm_gateway.runtime.kernels.library import CHOICE

NAME = "mm_gateway"
HELD = {"f32": {"dtype": "fp32"}, "f16": {"dtype": "fp16"}, "bf16": {"dtype": "bf16"}}


def command(folder: Path, precision: str, *, guesses: bool, kernels: str = "") -> ServerCommand:
    """Serves the checkpoint in `folder` as `m`; its configuration is written beside the folder.

    Args:
        guesses: `engine.prompt_lookup`. kernels: those of one instruction set; empty: the best that the processor has.
    """
    held = HELD.get(precision) or {"quantization": precision}
    models, config = folder.with_name(f"{folder.name}-{precision}.yaml"), folder.with_name(f"guesses-{guesses}.yaml")
    models.write_text(json.dumps({"models": {"m": {"model_name": str(folder), "device": "cpu", "preload": True} | held}}))
    config.write_text(json.dumps({"engine": {"prompt_lookup": guesses}}))
    words = (sys.executable, "-m", "mm_gateway.main", "serve", "--config", str(config), "--models", str(models), "--port", PORT)
    return ServerCommand(f"{NAME} {precision}", words, "m", {CHOICE: kernels} if kernels else {})


def server(model: Model, precision: str, kernels: str = "") -> Server:
    """With guesses off: peers guess nothing by default, and random words greedily continued repeat themselves too much."""
    return Server(NAME, command(model.folder, precision, guesses=False, kernels=kernels), ready_s=6)
