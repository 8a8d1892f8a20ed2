"""The documentation is true: every example of the README and of docs/ that needs no download runs as written, what is said of numbers is
what the code has, the pages made from the code are up to date, and all of them build into a site without a broken link.

The guides' snippets run in test_guides.py. The word after a fence's language says how a block is run; `py` follows the `python client`
of its page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from compat_tests.support.gateways import free_port, stop_gateway, wait_for
from mm_gateway.main import cli
from mm_gateway.runtime.grammars import limits as grammar_limits
from tools import reference_pages

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/clients").glob("*.md"))]
    if not path.name.startswith("guide.")
}
BLOCKS = [
    (page, *match.groups())
    for page, text in PAGES.items()
    for match in re.finditer(r"^```([\w ]+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
]
ADDRESS = "http://127.0.0.1:8000"
# What is in an example that follows its page's client -> what it prints, whatever words the model draws.
EXPECTED = {
    "search-qa": "",
    "lesson-pack": "'name': 'exercises', 'success': True",
    "chat-generate": "",
    "class City": "inhabitants=",
    "first = client.responses.create": "",
    "background=True": "",
    "embeddings.create": "256 ",
    "continue_final_message": "[",
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, gpt2_checkpoint: Path) -> Iterator[str]:
    """A gateway on its built-in default, in a folder where a small checkpoint is found under the name of the one on the hub."""
    port = free_port()
    folder = tmp_path_factory.mktemp("readme")
    (folder / "gpt2").symlink_to(gpt2_checkpoint)
    log = folder / "stderr.txt"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MM_GATEWAY_")}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "mm_gateway.main", "serve", "--port", str(port)], stderr=stderr, cwd=folder, env=clean
        )
    gateway = wait_for(process, port, log)
    yield gateway.address
    stop_gateway(gateway)


@pytest.mark.parametrize("script", [text for _, language, text in BLOCKS if language == "bash"])
def test_curl_examples(address: str, script: str) -> None:
    done = subprocess.run(["sh", "-c", script.replace(ADDRESS, address)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    if "stream" in script:
        assert done.stdout.endswith("data: [DONE]\n\n")
    elif "error=429" in script:
        assert "HTTP/1.1 429" in done.stdout and "retry-after: 1" in done.stdout
    elif "/v1/messages" in script:
        assert '"type":"message"' in done.stdout
    elif "/tokenize" in script:
        assert '"count":' in done.stdout
    else:
        assert '"id":"tiny-chat"' in done.stdout and '"id":"mm-orch/search-qa"' in done.stdout


@pytest.mark.parametrize("script", [text for _, language, text in BLOCKS if language == "python"])
def test_python_examples(address: str, script: str, gpt2_checkpoint: Path, tmp_path: Path) -> None:
    # A folder of that name is found before the hub.
    (tmp_path / "gpt2").symlink_to(gpt2_checkpoint)
    script = script.replace(ADDRESS, address)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 5


@pytest.mark.parametrize(("part", "printed"), EXPECTED.items())
def test_examples_that_follow_the_client_of_their_page(
    address: str, part: str, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ((page, script),) = [(page, text) for page, language, text in BLOCKS if language == "py" and part in text]
    (client,) = [text for name, language, text in BLOCKS if name == page and language == "python client"]
    code = compile(client.replace(ADDRESS, address) + script, page, "exec")
    # In this process, where a client's library is imported once for all of them.
    example = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", example)
    exec(code, vars(example))
    found = capsys.readouterr().out
    assert printed in found and found.strip()


def test_every_example_that_follows_a_client_is_run() -> None:
    assert len(EXPECTED) == len([text for _, language, text in BLOCKS if language == "py"])


def test_every_kind_of_example_is_one_that_is_run_or_a_command_to_type() -> None:
    known = {"bash", "python", "python client", "py", "python workflow", "sh", "text", "toml", "mermaid"}
    known |= {"yaml", "yaml gateway", "yaml keys", "yaml script"}
    elsewhere = {"docs/extending.md"}
    assert {language for page, language, _ in BLOCKS if page not in elsewhere} <= known


def test_the_workflow_to_start_from_is_the_one_that_is_tested() -> None:
    assert [text for _, language, text in BLOCKS if language == "python workflow"] == [(ROOT / "tests/workflows/echo_twice.py").read_text()]


def test_the_configuration_examples_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "my-model").mkdir()
    for _, language, text in BLOCKS:
        if language == "yaml":
            file = tmp_path / "models.yaml"
            file.write_text(text)
            done = CliRunner().invoke(cli, ["check", "--models", str(file)])
            assert done.exit_code == 0, done.output


def test_the_example_of_keys_is_valid(tmp_path: Path) -> None:
    for _, language, text in BLOCKS:
        if language in ("yaml gateway", "yaml keys"):
            (tmp_path / f"{language.split()[1]}.yaml").write_text(text)
    command = [sys.executable, "-m", "mm_gateway.main", "check", "--config", str(tmp_path / "gateway.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_every_room_says_what_it_is_and_is_on_the_plan() -> None:
    plan = PAGES["docs/architecture.md"]
    rooms = [
        path
        for path in sorted((ROOT / "mm_gateway").rglob("__init__.py"))
        if path.parent.name not in ("mm_gateway", "builtin_models", "tiny_chat")
    ]
    assert [str(path) for path in rooms if not path.read_text(encoding="utf-8").startswith('"""')] == []
    assert [str(path) for path in rooms if not re.search(rf"^ *{path.parent.name}/ ", plan, re.MULTILINE)] == []
    named = re.findall(r"`([\w/]+/[\w.]+\.py)`", plan)
    assert len(named) > 15 and [name for name in named if not (ROOT / "mm_gateway" / name).is_file()] == []


def test_the_readme_stays_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 200


@pytest.mark.parametrize("name", ["configuration-reference.md", "api-fields.md"])
def test_the_pages_made_from_the_code_are_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == reference_pages.pages()[name], "run `make docs` and commit what it writes"


def test_the_limits_of_a_grammar_are_those_of_the_code() -> None:
    page = PAGES["docs/request-limits.md"]
    section = page[page.index("## Grammars") :]
    numbers = {int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\d|\d", section)}
    sizes = {int(number) << 10 for number in re.findall(r"(\d+) KiB", section)} | {int(n) << 20 for n in re.findall(r"(\d+) MiB", section)}
    limits = {name: value for name, value in vars(grammar_limits).items() if name.startswith("MAX_")}
    assert len(limits) > 5 and {name: value for name, value in limits.items() if value not in numbers | sizes} == {}


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    # The theme's own notice about its future is a line on stderr, and no fault of a page.
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {str(path.relative_to(tmp_path)): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")}
    assert "max_cached_models" in pages["configuration-reference/index.html"]
    assert "Apache License" in pages["license/index.html"]
    # Whoever reads it asks no other server for fonts, styles or scripts.
    assert [page for page, text in pages.items() if re.search(r'<(?:script|link)[^>]+(?:src|href)="https?://(?!127)', text)] == []
