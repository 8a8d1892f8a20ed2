"""Every snippet of the two guides runs as written, in the order in which it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from tests.support import checkpoints

ROOT = Path(__file__).parent.parent
GUIDES = {
    path.name: re.findall(r"```(\w+)\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    for path in sorted((ROOT / "docs").glob("guide.*.md"))
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which `gpt2` is a small checkpoint that likes to end what it has begun, as trained models do."""
    folder = tmp_path_factory.mktemp("guide")
    path = checkpoints.gpt2(folder / "gpt2", n_positions=1024)
    model = GPT2LMHeadModel.from_pretrained(path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    ending = [tokenizer.convert_tokens_to_ids('"'), tokenizer.eos_token_id]
    direction = torch.ones(model.config.n_embd)
    with torch.no_grad():
        model.transformer.ln_f.bias.add_(0.4 * direction)
        model.transformer.wte.weight[ending] += 0.22 * direction
    model.save_pretrained(path)
    return folder


def run(command: list[str], folder: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MM_GATEWAY_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{clean.get('PATH', '')}"
    env = {**clean, "PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_snippets_run_one_after_the_other(folder: Path) -> None:
    ended = [
        "assert result.status == 'success', result",
        "print('roles', conv.history, len(manager.list_models()), sep='|')",
        "engine.close(); manager.close()",
    ]
    # Both guides in one process: most of its time is what it imports.
    code = [line for snippets in GUIDES.values() for line in [*(text for language, text in snippets if language == "python"), *ended]]
    printed = run([sys.executable, "-c", "\n".join(code)], folder)
    assert printed.count("['user', 'assistant', 'user']") == len(GUIDES)
    of_each = printed.split("roles|()|0\n")
    assert len(of_each) == len(GUIDES) + 1 and of_each[-1] == ""
    assert all(text.count(" -> ") >= 3 for text in of_each[:-1])


def test_the_commands_run(folder: Path) -> None:
    scripts = [text for snippets in GUIDES.values() for language, text in snippets if language == "bash"]
    first, *others = dict.fromkeys(scripts)
    assert "gpt2-medium" in run(["sh", "-c", first], folder) and len(others) == 2
    for script in others:
        run(["sh", "-c", script], folder)  # what random weights say, if anything, is theirs to choose


def test_the_configurations_are_valid(folder: Path) -> None:
    for text in dict.fromkeys(text for snippets in GUIDES.values() for language, text in snippets if language == "yaml"):
        (folder / "models.yaml").write_text(text, encoding="utf-8")
        assert "valid" in run([sys.executable, "-m", "mm_gateway.main", "check", "--models", "models.yaml"], folder)


def test_both_guides_have_the_same_snippets() -> None:
    english, chinese = ([language for language, _ in GUIDES[name]] for name in ("guide.en.md", "guide.zh.md"))
    assert english == chinese
