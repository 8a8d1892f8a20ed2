"""All peers, by the names that `--peers` takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import genai, llama_server, transformers_serve, vllm
from benchmarks.peers.models import Model
from benchmarks.peers.server import Demand, Server

PEERS: dict[str, Callable[[Model, str, Path | None, Demand], list[Server]]] = {
    "llama-server": llama_server.servers,
    "vllm": vllm.servers,
    "openvino": genai.servers,
    "transformers": transformers_serve.servers,
}
"""From a model, a precision, where the peer is installed and what is asked of it to servers ready to start; they raise NotServed."""


def read_peers(text: str) -> dict[str, Path | None]:
    """`llama-server=PATH,vllm=VENV,transformers`. Raises ValueError for a name that is no peer."""
    found: dict[str, Path | None] = {}
    for part in filter(None, text.split(",")):
        name, _, where = part.partition("=")
        if name not in PEERS:
            raise ValueError(f"{name} is no peer; there are {', '.join(PEERS)}")
        found[name] = Path(where).absolute() if where else None
    return found
