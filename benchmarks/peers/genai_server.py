"""OpenVINO GenAI's continuous batching behind `/v1/completions`: `genai_server.py FOLDER PORT SLOTS CACHE_GIB [f32|f16|bf16]`.

Runs in an environment of its own, with openvino-genai and tokenizers and nothing of this project. One thread steps the pipeline and hands
each sequence its new tokens; the threads of the connections turn them into events. What the HTTP costs is in the figures.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import itertools
import json
import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from tokenizers import Tokenizer


class Engine:
    """The pipeline and its thread."""

    def __init__(self, folder: str, slots: int, cache_gib: int, computed: str | None) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = cache_gib
        scheduler.max_num_seqs = slots
        options: dict[str, Any] = {}
        if computed is not None:
            options = {"INFERENCE_PRECISION_HINT": computed, "KV_CACHE_PRECISION": "f32" if computed == "f32" else "f16"}
        if computed == "f32":
            options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", options)
        self._ids = itertools.count()
        self._new: queue.SimpleQueue[tuple[list[int], int, queue.SimpleQueue]] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, ids: list[int], tokens: int) -> queue.SimpleQueue:
        """A queue of lists of new tokens, which ends with None."""
        out: queue.SimpleQueue = queue.SimpleQueue()
        self._new.put((ids, tokens, out))
        return out

    def _run(self) -> None:
        running: list[tuple[Any, queue.SimpleQueue]] = []
        while True:
            while not (running and self._new.empty()):
                running.append(self._begin(*self._new.get()))
            self._pipeline.step()
            for handle, out in running:
                while handle.can_read():
                    for output in handle.read().values():
                        out.put(list(output.generated_ids))
            ended = [pair for pair in running if pair[0].get_status() != openvino_genai.GenerationStatus.RUNNING]
            running = [pair for pair in running if pair not in ended]
            for _, out in ended:
                out.put(None)

    def _begin(self, ids: list[int], tokens: int, out: queue.SimpleQueue) -> tuple[Any, queue.SimpleQueue]:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
        prompt = openvino.Tensor(np.array([ids], dtype=np.int64))
        return self._pipeline.add_request(next(self._ids), prompt, config), out


class Handler(BaseHTTPRequestHandler):
    """One request after another of one connection."""

    protocol_version = "HTTP/1.1"
    engine: Engine
    tokenizer: Tokenizer

    def do_GET(self) -> None:
        self._send(b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ids = self.tokenizer.encode(body["prompt"]).ids
        pieces = iter(self.engine.submit(ids, body["max_tokens"]).get, None)
        if not body.get("stream"):
            text = self.tokenizer.decode([token for piece in pieces for token in piece])
            self._send(json.dumps({"choices": [{"text": text, "finish_reason": "length"}]}).encode())
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        count = 0
        for piece in pieces:
            count += len(piece)
            self._event({"choices": [{"text": self.tokenizer.decode(piece), "finish_reason": None}]})
        usage = {"prompt_tokens": len(ids), "completion_tokens": count}
        self._event({"choices": [{"text": "", "finish_reason": "length"}], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, event: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def main() -> None:
    folder, port, slots, cache_gib, *computed = sys.argv[1:]
    Handler.engine = Engine(folder, int(slots), int(cache_gib), computed[0] if computed else None)
    Handler.tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    Listener(("127.0.0.1", int(port)), Handler).serve_forever()


main()
