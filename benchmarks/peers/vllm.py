"""vLLM's build for CPUs, from an environment of its own: VENV/bin/vllm."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.models import Model
from benchmarks.peers.server import Demand, NotServed, Server, installed_version
from benchmarks.support.servers import PORT, ServerCommand

TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
CONTEXT_TOKENS = "4096"
"""The same in every run: what it compiled at an earlier start is used again."""


def servers(model: Model, precision: str, where: Path | None, demand: Demand) -> list[Server]:
    """where: the folder of the environment."""
    if where is None:
        raise NotServed("vllm=VENV says where its environment is")
    if precision not in TYPES:
        raise NotServed("makes no weights of 8 or 4 bits on a CPU itself")
    command = (str(where / "bin" / "vllm"), "serve", str(model.folder), "--served-model-name", "m", "--host", "127.0.0.1", "--port", PORT)
    command += ("--dtype", TYPES[precision], "--max-model-len", CONTEXT_TOKENS, "--max-num-seqs", str(demand.clients))
    # Both cores compute: by default it would leave one to its front end.
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": str(demand.cache_gib(model.token_bytes)),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    }
    environment["PATH"] = f"{where / 'bin'}:/usr/local/bin:/usr/bin:/bin"  # its compiler is found beside it
    described = ServerCommand(f"vLLM {TYPES[precision]}", command, "m", environment)
    return [Server("vLLM", described, ready_s=90, ready_timeout_s=900, version=installed_version(where, "vllm"))]
