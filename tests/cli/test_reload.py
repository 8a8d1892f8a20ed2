"""SIGHUP to a real process, amid a stream."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.cli.test_shutdown import process, slow, started_stream
from tests.support.served import post, raw_reply


async def test_sighup_takes_changed_models_over_and_ends_no_stream(tmp_path: Path) -> None:
    models = tmp_path / "models.yaml"
    models.write_text("models: {mock: {model_name: mock, backend: mock}}")
    with process("-m", "mm_gateway.main", "serve", "--port", "0", "--models", str(models), grace_s=20) as (server, port):
        reader, writer = await started_stream(port, "/v1/chat/completions", {**slow(0.05), "max_tokens": 20})
        models.write_text("models: {other: {model_name: mock, backend: mock}}")
        server.send_signal(signal.SIGHUP)
        assert server.stderr is not None
        assert any("reload: added: other, removed: mock" in line for line in server.stderr)
        body = json.dumps({"model": "other", "prompt": "Hi", "max_tokens": 1}).encode()
        assert (await raw_reply(port, post("/v1/completions", body)))[0] == 200
        assert b"data: [DONE]" in await reader.read()
        writer.close()
        server.terminate()
        assert server.wait(20) == 0
