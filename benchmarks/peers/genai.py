"""OpenVINO GenAI's pipeline with continuous batching, behind a small HTTP server of ours (genai_server.py), because it has none."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.peers.models import Model
from benchmarks.peers.server import Demand, NotServed, Server, installed_version
from benchmarks.support.servers import PORT, ServerCommand

STORED = {"f32": "fp32", "f16": "fp16", "bf16": "fp16", "8bit": "int8", "4bit": "int4"}
COMPUTED = {"f32": "f32", "f16": "f16", "bf16": "bf16"}
"""Left to OpenVINO for weights of 8 and 4 bits."""


def servers(model: Model, precision: str, where: Path | None, demand: Demand) -> list[Server]:
    """where: the folder of the environment."""
    if where is None:
        raise NotServed("openvino=VENV says where its environment is")
    version = installed_version(where, "openvino-genai")
    folder = _exported(model, STORED[precision], where)
    driver = Path(__file__).with_name("genai_server.py")
    command = (str(where / "bin" / "python"), str(driver), str(folder), PORT, str(demand.clients), str(demand.cache_gib(model.token_bytes)))
    command += (COMPUTED[precision],) if precision in COMPUTED else ()
    described = ServerCommand(f"OpenVINO GenAI {precision}", command, "m")
    return [Server("OpenVINO GenAI", described, ready_s=10, version=version)]


def _exported(model: Model, stored: str, where: Path) -> Path:
    """The model as optimum-intel exports it, made unless it is there."""
    folder = model.folder.parent / f"{model.folder.name}-openvino-{stored}"
    if (folder / "done").exists():
        return folder
    command = [
        str(where / "bin" / "optimum-cli"),
        "export",
        "openvino",
        "--model",
        str(model.folder),
        "--task",
        "text-generation-with-past",
    ]
    command += ["--weight-format", stored, str(folder)]
    if stored == "int4":
        command += ["--group-size", "32"]  # as llama.cpp's blocks; its default of 128 does not divide a hidden size of 576
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise NotServed(f"optimum-cli export openvino: {(result.stderr.strip() or result.stdout.strip()).splitlines()[-1]}")
    (folder / "done").touch()
    return folder
