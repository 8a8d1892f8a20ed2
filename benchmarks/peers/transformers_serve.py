"""`transformers serve` in its two modes: one request after another, and continuous batching."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers.models import Model
from benchmarks.peers.server import Demand, NotServed, Server, installed_version
from benchmarks.support.servers import PORT, ServerCommand

TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
BLOCK_TOKENS = 256
"""Of one block of its continuous batching, by default."""
BATCH_TOKENS = 2304


def servers(model: Model, precision: str, where: Path | None, demand: Demand) -> list[Server]:
    """where: the folder of an environment with transformers[serving]; None: this one."""
    if precision not in TYPES:
        raise NotServed("its weights of 8 and 4 bits are bitsandbytes', which are for GPUs")
    where = where or Path(sys.prefix)
    installed_version(where, "fastapi")  # what the extra `serving` brings
    version, folder = installed_version(where, "transformers"), str(model.without_end())
    # By itself it would take nine tenths of the memory for keys and values.
    blocks = demand.at_once // BLOCK_TOKENS + 2 * demand.clients
    batching = ("--continuous-batching", "--cb-num-blocks", str(blocks), "--cb-max-batch-tokens", str(BATCH_TOKENS))
    found = []
    for mode, flags in (("", ()), (", continuous batching", batching)):
        command = (
            str(where / "bin" / "transformers"),
            "serve",
            folder,
            "--device",
            "cpu",
            "--dtype",
            TYPES[precision],
            "--host",
            "127.0.0.1",
            "--port",
            PORT,
            *flags,
        )
        described = ServerCommand(f"transformers serve {precision}{mode}", command, folder, {"HF_HUB_OFFLINE": "1"})
        about = {"ready_s": 10, "one_at_a_time": not flags, "takes_ignore_eos": False, "version": version}
        found.append(Server(f"transformers serve{mode}", described, **about))
    return found
