"""What a comparison has to know of a server that it starts."""

from __future__ import annotations

import math
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.servers import ServerCommand

PRECISIONS = ("f32", "f16", "bf16", "8bit", "4bit")


class NotServed(Exception):
    """A peer cannot hold the model in that precision; the message says why, for the table."""


@dataclass(frozen=True)
class Demand:
    """What a server is started for.

    Attributes:
        clients: at the same time, at most. tokens: prompt and answer of one, at most. at_once: tokens of all together, at most.
    """

    clients: int
    tokens: int
    at_once: int

    def cache_gib(self, token_bytes: int) -> int:
        """Room for keys and values of token_bytes each, for peers that set it aside: with a quarter to spare, and 2 at least."""
        return max(2, math.ceil(1.25 * self.at_once * token_bytes / 2**30))


@dataclass(frozen=True)
class Server:
    """One server of a comparison.

    Attributes:
        name: in tables, without the precision. ready_s: about how long its start takes, for the estimate before a run.
        ready_timeout_s: how long it may take. health: a path that answers 200 once it is ready.
        one_at_a_time: answers one request after another, so that many clients would take minutes; gets one request a client.
        takes_ignore_eos: knows that extension; others get a checkpoint without an end. version: of its program; empty: this project's.
    """

    name: str
    command: ServerCommand
    ready_s: float
    ready_timeout_s: float = 240.0
    health: str = "/health"
    one_at_a_time: bool = False
    takes_ignore_eos: bool = True
    version: str = ""


def installed_version(where: Path, package: str) -> str:
    """Of a package in an environment. Raises NotServed where it is not there."""
    words = [str(where / "bin" / "python"), "-c", f"from importlib.metadata import version; print(version({package!r}))"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotServed(f"its environment has no {package}") from error
