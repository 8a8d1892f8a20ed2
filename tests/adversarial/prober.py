"""Watches a gateway from a process of its own: how long `GET /health` takes, and how long a model's stream pauses.

    python -m tests.adversarial.prober PORT PID

A thread of the attacking process would be late for reasons of its own, so the probes have a process. Each line of output is an
observation as JSON; times are of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import http.client
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Literal

import msgspec

INTERVAL_S = 0.1
PROBE_TIMEOUT_S = 30.0
STORY = {"model": "tiny-chat", "messages": [{"role": "user", "content": "Tell me of the models."}], "stream": True, "max_tokens": 200}


class Observation(msgspec.Struct):
    """One probe, or one pause between two pieces of the stream.

    Attributes:
        started_s, seconds: when it began and how long it took. waited_s: of these, for a core that other threads had.
        problem: what went wrong; "" is nothing.
    """

    kind: Literal["probe", "pause"]
    started_s: float
    seconds: float
    waited_s: float = 0.0
    problem: str = ""


def waited_for_a_core_s(pid: int | str, thread: int) -> float:
    """Seconds for which a thread could have run and had no core, since it began; 0 where the system does not tell (Linux does)."""
    try:
        return int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def probe(port: int, pid: int) -> Observation:
    """One `GET /health` over a connection of its own: whoever cannot connect waits too."""

    def waited() -> float:
        # The event loop runs in the gateway's first thread, whose id is that of the process.
        return waited_for_a_core_s(pid, pid) + waited_for_a_core_s("self", threading.get_native_id())

    before_s, started_s, problem = waited(), time.monotonic(), ""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PROBE_TIMEOUT_S) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            head = connection.recv(4096)
        if not head.startswith(b"HTTP/1.1 200 "):
            problem = f"/health answered {head[:30]!r}"
    except OSError as error:
        problem = f"/health: {error!r}"
    return Observation("probe", started_s, time.monotonic() - started_s, waited() - before_s, problem)


def read_streams(port: int) -> None:
    """One stream of the model after the other; reports each pause that is longer than a probe's interval."""
    while True:
        last_s = time.monotonic()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            connection.request("POST", "/v1/chat/completions", msgspec.json.encode(STORY), {"content-type": "application/json"})
            reply = connection.getresponse()
            line = b""
            while piece := reply.readline():
                now_s = time.monotonic()
                if now_s - last_s > INTERVAL_S:
                    report(Observation("pause", last_s, now_s - last_s))
                last_s, line = now_s, piece.strip() or line
            connection.close()
            if reply.status == 429 and reply.getheader("retry-after"):  # an answer, and others are told the same
                time.sleep(INTERVAL_S)
            elif line != b"data: [DONE]":
                report(Observation("pause", last_s, 0.0, problem=f"a stream ended with {reply.status} {line[:300]!r}"))
        except (OSError, http.client.HTTPException) as error:
            report(Observation("pause", last_s, time.monotonic() - last_s, problem=f"a stream broke off: {error!r}"))
        time.sleep(0.01)  # a gateway that is gone is not asked without end


def report(observation: Observation) -> None:
    sys.stdout.write(msgspec.json.encode(observation).decode() + "\n")
    sys.stdout.flush()


def main() -> None:
    port, pid = int(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=read_streams, args=(port,), daemon=True).start()
    while True:
        observation = probe(port, pid)
        report(observation)
        time.sleep(max(0.0, observation.started_s + INTERVAL_S - time.monotonic()))


if __name__ == "__main__":
    main()
