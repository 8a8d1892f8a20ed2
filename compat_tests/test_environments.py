"""Clients that pin other versions than the core's: each folder of `environments/` is run by the pytest of the environment of its name."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from compat_tests.support.gateways import Gateway, environment

FOLDER = Path(__file__).parent / "environments"
CHECKS = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.glob("*/check_*.py"))
OPTIONS = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(FOLDER), "-W", "ignore", "-o", "asyncio_mode=auto"]


@pytest.mark.environments
@pytest.mark.parametrize("check", CHECKS)
def test_clients_of_other_environments_pass_their_checks(gateway: Gateway, check: str, tmp_path: Path) -> None:
    python = environment(check.split("/")[0])
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    done = subprocess.run(
        [python, "-m", "pytest", *OPTIONS, str(FOLDER / check)],
        env={**os.environ, **offline, "GATEWAY": gateway.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
