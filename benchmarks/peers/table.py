"""All peers, by the names that `--peers` takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import genai, llama_server, transformers_serve, vllm
from benchmarks.peers.models import Model
from benchmarks.peers.server import Demand, Server


@dataclass(frozen=True)
class Peer:
    """title: for tables, where it has no server to name. servers: from a model, a precision, where the peer is installed and what
    will be asked of it to servers that are ready to start; raises NotServed."""

    title: str
    servers: Callable[[Model, str, Path | None, Demand], list[Server]]


PEERS = {
    "llama-server": Peer("llama-server", llama_server.servers),
    "vllm": Peer("vLLM", vllm.servers),
    "openvino": Peer("OpenVINO GenAI", genai.servers),
    "transformers": Peer("transformers serve", transformers_serve.servers),
}


def read_peers(text: str) -> dict[str, Path | None]:
    """`llama-server=PATH,vllm=VENV,transformers`. Raises ValueError for a name that is no peer."""
    found: dict[str, Path | None] = {}
    for part in filter(None, text.split(",")):
        name, _, where = part.partition("=")
        if name not in PEERS:
            raise ValueError(f"{name} is no peer; there are {', '.join(PEERS)}")
        found[name] = Path(where).absolute() if where else None
    return found
