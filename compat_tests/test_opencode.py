"""opencode as a process, headless, against a gateway: it answers, and it works on files as the model tells it to."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from compat_tests.support.gateways import Gateway

pytestmark = pytest.mark.environments

MODULES = Path(__file__).parent / "agents" / "node_modules"


def opencode(gateway: Gateway, folder: Path, prompt: str, *, model: str = "scripted") -> subprocess.CompletedProcess[str]:
    """Run it in a folder. What it keeps for itself stays in the folder's neighbour `home`."""
    programs = sorted(MODULES.glob("opencode-*/bin/opencode"), key=lambda path: len(str(path)))  # the one of this platform
    assert programs, f"nothing is installed in {MODULES}: run `make compat`"
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "mm_gateway",
        "options": {"baseURL": f"{gateway.address}/v1", "apiKey": "none"},
        "models": {model: {"name": model, "limit": {"context": 32768, "output": 4096}}},
    }
    config = {
        "$schema": "https://opencode.ai/config.json",
        "autoupdate": False,
        "share": "disabled",
        "model": f"local/{model}",
        "small_model": f"local/{model}",
        "provider": {"local": provider},
        "permission": {"edit": "allow", "bash": "allow"},
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "OPENCODE_"))}
    own = {
        "HOME": str(home),
        "PWD": str(folder),  # which it takes for its project, whatever folder it runs in
        "OPENCODE_CONFIG_CONTENT": json.dumps(config),
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    }
    return subprocess.run(
        [str(programs[0]), "run", "--model", f"local/{model}", prompt],
        cwd=folder,
        env={**clean, **own},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_it_answers_a_question(scripted: tuple[Gateway, Path], project: Path) -> None:
    gateway, script = scripted
    script.write_text("[It is a small file.]")
    done = opencode(gateway, project, "What is in notes.txt?")
    assert done.returncode == 0 and "It is a small file." in done.stdout, done.stdout + done.stderr


def test_it_reads_edits_and_runs_as_the_model_tells_it(scripted: tuple[Gateway, Path], project: Path) -> None:
    gateway, script = scripted
    notes = str(project / "notes.txt")
    copy = {"command": "cp notes.txt copy.txt", "description": "Copies the notes"}
    script.write_text(
        json.dumps(
            [
                {"text": "I look at the file.", "calls": [{"name": "read", "arguments": {"filePath": notes}}]},
                {"calls": [{"name": "edit", "arguments": {"filePath": notes, "oldString": "one", "newString": "two"}}]},
                {"calls": [{"name": "bash", "arguments": copy}]},
                "All is done.",
            ]
        )
    )
    done = opencode(gateway, project, "Change one to two.")
    assert done.returncode == 0 and "All is done." in done.stdout, done.stdout + done.stderr
    assert (project / "notes.txt").read_text() == (project / "copy.txt").read_text() == "line two\n", done.stderr


def test_a_small_real_model_breaks_nothing(small_model: Gateway, project: Path) -> None:
    done = opencode(small_model, project, "What is in notes.txt?", model="small")
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert (project / "notes.txt").read_text() == "line one\n"
