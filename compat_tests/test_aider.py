"""aider as a process, headless, against a gateway: it answers, and it changes files and runs a command as the model tells it to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from compat_tests.support.gateways import Gateway, environment

pytestmark = pytest.mark.environments

EDIT = """\
notes.txt
```
<<<<<<< SEARCH
line one
=======
line two
>>>>>>> REPLACE
```
"""


def aider(gateway: Gateway, folder: Path, prompt: str, *options: str, model: str = "scripted") -> subprocess.CompletedProcess[str]:
    """Run it in a folder over notes.txt. What it keeps for itself stays in the folder's neighbour `home`."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    program = Path(environment("aider")).parent / "aider"
    silent = ["--analytics-disable", "--no-check-update", "--no-show-release-notes", "--no-show-model-warnings", "--no-pretty"]
    headless = ["--yes-always", "--no-git", "--no-suggest-shell-commands", "--no-detect-urls", "--map-tokens", "0"]
    return subprocess.run(
        [str(program), "--model", f"openai/{model}", *silent, *headless, *options, "--message", prompt, "notes.txt"],
        cwd=folder,
        env={
            **os.environ,
            "HOME": str(home),
            "OPENAI_API_BASE": f"{gateway.address}/v1",
            "OPENAI_API_KEY": "none",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def test_it_answers_a_question(scripted: tuple[Gateway, Path], project: Path) -> None:
    gateway, script = scripted
    script.write_text("[It is a small file.]")
    done = aider(gateway, project, "What is in notes.txt?", "--chat-mode", "ask")
    assert done.returncode == 0 and "It is a small file." in done.stdout, done.stdout


def test_it_edits_and_runs_as_the_model_tells_it(scripted: tuple[Gateway, Path], project: Path) -> None:
    gateway, script = scripted
    script.write_text(f"- |\n{''.join(f'  {line}' for line in EDIT.splitlines(keepends=True))}")
    done = aider(gateway, project, "Change one to two.", "--edit-format", "diff", "--auto-test", "--test-cmd", "cp notes.txt copy.txt")
    assert done.returncode == 0, done.stdout
    assert (project / "notes.txt").read_text() == (project / "copy.txt").read_text() == "line two\n", done.stdout


def test_a_small_real_model_breaks_nothing(small_model: Gateway, project: Path) -> None:
    done = aider(small_model, project, "What is in notes.txt? Answer in one short sentence.", "--chat-mode", "ask", model="small")
    assert done.returncode == 0 and "Tokens:" in done.stdout, done.stdout
    assert (project / "notes.txt").read_text() == "line one\n"
