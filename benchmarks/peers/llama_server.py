"""llama.cpp's server, on GGUF files of its own quantizers: as many slots as clients, as many threads as cores."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks.peers.models import Model
from benchmarks.peers.server import Demand, NotServed, Server
from benchmarks.support.servers import PORT, ServerCommand

KINDS = {"f32": "F32", "f16": "F16", "bf16": "BF16", "8bit": "Q8_0", "4bit": "Q4_0"}
SPARE_TOKENS = 64


def servers(model: Model, precision: str, where: Path | None, demand: Demand) -> list[Server]:
    """where: the binary."""
    if where is None:
        raise NotServed("llama-server=PATH says where its binary is")
    try:
        file = model.gguf(KINDS[precision])
    except FileNotFoundError as error:
        raise NotServed(str(error)) from error
    threads, context = str(len(os.sched_getaffinity(0))), demand.clients * (demand.tokens + SPARE_TOKENS)
    command = (str(where), "-m", str(file), "--port", PORT, "--host", "127.0.0.1", "-np", str(demand.clients), "-c", str(context))
    command += ("-t", threads, "-tb", threads, "--no-webui", "--cache-ram", "0")
    described = ServerCommand(f"llama-server {KINDS[precision]}", command, "m")
    return [Server("llama-server", described, ready_s=3, version=_version(where))]


def _version(binary: Path) -> str:
    try:
        said = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotServed(f"its binary does not run: {error}") from error
    return next((line.removeprefix("version:").strip() for line in (said.stderr + said.stdout).splitlines() if "version" in line), "")
