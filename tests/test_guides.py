"""Every snippet of the two guides runs as written, in the order in which it stands there."""

from __future__ import annotations

import importlib.util
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


@pytest.mark.parametrize("guide", GUIDES)
def test_the_python_snippets_run_one_after_the_other(guide: str, folder: Path) -> None:
    snippets = [text for language, text in GUIDES[guide] if language == "python"]
    if importlib.util.find_spec("mm_gateway.workflows.search_qa") is None:
        snippets = [text for text in snippets if "search_qa" not in text]
    ended = [
        "assert result.status == 'success', result",
        "print('roles', conv.history, len(manager.list_models()), sep='|')",
        "engine.close(); manager.close()",
    ]
    printed = run([sys.executable, "-c", "\n".join([*snippets, *ended])], folder)
    assert "['user', 'assistant', 'user']" in printed
    assert printed.count(" -> ") >= 3
    assert printed.endswith("roles|()|0\n")


def test_the_commands_run(folder: Path) -> None:
    scripts = [text for snippets in GUIDES.values() for language, text in snippets if language == "bash"]
    first, *others = dict.fromkeys(scripts)
    assert "gpt2-medium" in run(["sh", "-c", first], folder) and len(others) == 2
    for script in others:
        run(["sh", "-c", script], folder)  # what random weights say, if anything, is theirs to choose


@pytest.mark.parametrize("guide", GUIDES)
def test_the_configurations_are_valid(guide: str, folder: Path) -> None:
    for language, text in GUIDES[guide]:
        if language == "yaml":
            (folder / "models.yaml").write_text(text, encoding="utf-8")
            assert "valid" in run([sys.executable, "-m", "mm_gateway.main", "check", "--models", "models.yaml"], folder)


def test_both_guides_have_the_same_snippets() -> None:
    english, chinese = ([language for language, _ in GUIDES[name]] for name in ("guide.en.md", "guide.zh.md"))
    assert english == chinese
