"""What a gateway that was told to end had acknowledged is in `mm-gateway usage`; and `mm-gateway keys` from making to deletion."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from mm_gateway.main import cli
from tests.cli.test_shutdown import health, process, slow, started_stream
from tests.support.served import post, raw_reply


def run(*arguments: str) -> str:
    outcome = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


async def test_nothing_that_was_answered_is_lost_by_a_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM_GATEWAY_STORAGE_FOLDER", str(tmp_path))
    with process(grace_s=0.3) as (server, port):
        while await health(port) is None:
            pass
        reader, writer = await started_stream(port, "/v1/chat/completions", slow())
        body = json.dumps({"model": "mock", "prompt": "Hi", "max_tokens": 2}).encode()
        for _ in range(20):
            assert (await raw_reply(port, post("/v1/completions", body)))[0] == 200
        server.terminate()
        await reader.read()
        writer.close()
        assert server.wait(20) == 0
    rows = [json.loads(line) for line in run("usage", "--by", "endpoint", "--start", "yesterday", "--json").splitlines()]
    assert [(row["endpoint"], row["requests"]) for row in rows] == [("/v1/chat/completions", 1), ("/v1/completions", 20)]
    assert rows[1]["output_tokens"] == 40 and rows[0]["output_tokens"] > 0  # the stream was ended amid its reply
    assert "REQUESTS" in run("usage") and run("usage", "--key", "nobody") == "Nothing was used\n"


def test_keys_from_making_to_deletion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM_GATEWAY_STORAGE_FOLDER", str(tmp_path))
    assert "everybody who reaches the gateway may use it" in run("keys", "list")
    secret = run("keys", "make", "--name", "alice", "--tokens-per-day", "1000", "--model", "mock", "--expires", "30d").splitlines()[1]
    assert secret.startswith("mmg-")
    until = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 30 * 86400))
    assert f"until {until}" in run("keys", "list") and "1000 tokens per day" in run("keys", "list")
    run("keys", "change", "alice", "--cost-per-month", "20")
    run("keys", "disable", "alice")
    assert "disabled" in run("keys", "list") and "20 cost per month" in run("keys", "list")
    run("keys", "enable", "alice")
    assert run("keys", "delete", "alice") == "alice is deleted\n"


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--cost-per-day", "nan", "nan is no amount"),
        ("--cost-per-month", "inf", "inf is no amount"),
        ("--name", "a\nb", "a name must be printable"),
        ("--name", "\udcff", "a name must be printable"),
        ("--expires", "9999-12-31T23:59-10:00", "is later than the year 9999"),
    ],
)
def test_a_key_that_would_not_be_what_was_meant_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str, says: str
) -> None:
    monkeypatch.setenv("MM_GATEWAY_STORAGE_FOLDER", str(tmp_path))
    done = CliRunner().invoke(cli, ["keys", "make", option, value])
    assert done.exit_code != 0 and says in f"{done.output}{done.exception}"
    assert "everybody who reaches the gateway may use it" in run("keys", "list")
