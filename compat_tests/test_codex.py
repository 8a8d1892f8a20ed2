"""Codex CLI as a process, headless, against a gateway: it answers, and it works on files as the model tells it to."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from compat_tests.support.gateways import Gateway

pytestmark = pytest.mark.environments

PROGRAM = Path(__file__).parent / "agents" / "node_modules" / ".bin" / "codex"
CONFIG = """\
model = "scripted"
model_provider = "local"
{settings}

[model_providers.local]
name = "{name}"
base_url = "{address}/v1"
env_key = "LOCAL_KEY"
wire_api = "responses"
"""


def codex(
    gateway: Gateway, folder: Path, prompt: str, *options: str, name: str = "mm_gateway", settings: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run it in a folder. What it keeps for itself stays in the folder's neighbour `home`. name: of its provider."""
    assert PROGRAM.exists(), f"nothing is installed in {PROGRAM.parent}: run `make compat`"
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(CONFIG.format(address=gateway.address, name=name, settings=settings))
    return subprocess.run(
        [str(PROGRAM), "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", *options, prompt],
        cwd=folder,
        env={**os.environ, "HOME": str(home), "CODEX_HOME": str(home), "LOCAL_KEY": "none"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_it_answers_a_question(scripted: tuple[Gateway, Path], project: Path) -> None:
    gateway, script = scripted
    script.write_text("[It is a small file.]")
    done = codex(gateway, project, "What is in notes.txt?")
    assert (done.returncode, done.stdout.strip()) == (0, "It is a small file."), done.stderr


def test_it_reads_and_edits_as_the_model_tells_it(scripted: tuple[Gateway, Path], project: Path) -> None:
    gateway, script = scripted
    edit = "sed -i s/one/two/ notes.txt && cp notes.txt copy.txt"
    script.write_text(
        json.dumps(
            [
                {"text": "I look at the file.", "calls": [{"name": "exec_command", "arguments": {"cmd": "cat notes.txt"}}]},
                {"calls": [{"name": "exec_command", "arguments": {"cmd": edit}}]},
                "All is done.",
            ]
        )
    )
    done = codex(gateway, project, "Change one to two.")
    assert (done.returncode, done.stdout.strip()) == (0, "All is done."), done.stderr
    assert (project / "notes.txt").read_text() == (project / "copy.txt").read_text() == "line two\n"
    assert "line one" in done.stderr  # what its command printed, in the account of the work


@pytest.mark.parametrize("name", ["mm_gateway", "OpenAI"])
def test_a_long_conversation_is_summed_up_and_gone_on_with(scripted: tuple[Gateway, Path], project: Path, name: str) -> None:
    """By a question of its own, or, of a provider that is called OpenAI, by the gateway's compaction."""
    gateway, script = scripted
    then = f"echo '[All is done.]' > {script}; cp notes.txt copy.txt"  # a conversation that begins anew would begin its script anew
    script.write_text(json.dumps([{"calls": [{"name": "exec_command", "arguments": {"cmd": then}}]}]))
    done = codex(gateway, project, "Copy the notes.", name=name, settings="model_auto_compact_token_limit = 1000")
    assert (done.returncode, done.stdout.strip()) == (0, "All is done."), done.stderr
    assert "context compacted" in done.stderr and (project / "copy.txt").exists()
    (record,) = (project.parent / "home" / "sessions").rglob("*.jsonl")
    assert ('"type":"compaction","id":"cmp_' in record.read_text()) == (name == "OpenAI")


def test_an_error_of_the_gateway_is_shown(scripted: tuple[Gateway, Path], project: Path) -> None:
    done = codex(scripted[0], project, "Hello", "--model", "nothing-of-this-name")
    assert done.returncode != 0 and "nothing-of-this-name" in done.stderr


def test_a_small_real_model_breaks_nothing(small_model: Gateway, project: Path) -> None:
    """Its answer, or that the prompt is longer than its context."""
    done = codex(small_model, project, "What is in notes.txt?", "--model", "small")
    assert done.returncode == 0 or "context" in done.stderr, done.stderr
    assert (project / "notes.txt").read_text() == "line one\n"
