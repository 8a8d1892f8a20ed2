"""Claude Code as a process, headless, against a gateway: it answers, and it works on files as the model tells it to."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support.gateways import Gateway, free_port, start_gateway, stop_gateway

pytestmark = pytest.mark.environments

MODULES = Path(__file__).parent / "agents" / "node_modules" / "@anthropic-ai"


def claude(gateway: Gateway, folder: Path, prompt: str, *options: str, status: int = 0) -> Any:
    """Run it in a folder; its result as JSON. What it writes about itself stays in the folder's neighbour `home`."""
    programs = sorted(MODULES.glob("claude-code-*/claude"))  # the one of this platform
    assert programs, f"nothing is installed in {MODULES}: run `make compat`"
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "CLAUDE_"))}
    own = {
        "HOME": str(home),
        "ANTHROPIC_BASE_URL": gateway.address,
        "ANTHROPIC_API_KEY": "none",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    done = subprocess.run(
        [str(programs[0]), "-p", prompt, "--output-format", "json", *options],
        cwd=folder,
        env={**clean, **own},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == status, done.stdout
    return json.loads(done.stdout.splitlines()[-1])


def test_it_answers_a_question(scripted: tuple[Gateway, Path], project: Path) -> None:
    gateway, script = scripted
    script.write_text("[It is a small file.]")
    result = claude(gateway, project, "What is in notes.txt?", "--model", "scripted")
    assert (result["is_error"], result["result"], result["stop_reason"]) == (False, "It is a small file.", "end_turn")


def test_it_reads_edits_and_runs_as_the_model_tells_it(scripted: tuple[Gateway, Path], project: Path) -> None:
    gateway, script = scripted
    notes = str(project / "notes.txt")
    script.write_text(
        json.dumps(
            [
                {"text": "I look at the file.", "calls": [{"name": "Read", "arguments": {"file_path": notes}}]},
                {"calls": [{"name": "Edit", "arguments": {"file_path": notes, "old_string": "one", "new_string": "two"}}]},
                {
                    "calls": [
                        {"name": "Write", "arguments": {"file_path": str(project / "new.txt"), "content": "new\n"}},
                        {"name": "Bash", "arguments": {"command": f"cat {notes} > {project}/copy.txt", "description": "Copy the notes"}},
                    ]
                },
                "All is done.",
            ]
        )
    )
    result = claude(gateway, project, "Change one to two.", "--model", "scripted", "--allowedTools", "Read", "Edit", "Write", "Bash")
    assert (result["is_error"], result["result"], result["num_turns"]) == (False, "All is done.", 5)
    assert (project / "notes.txt").read_text() == (project / "copy.txt").read_text() == "line two\n"
    assert (project / "new.txt").read_text() == "new\n"
    assert result["usage"]["input_tokens"] > 1000 and result["permission_denials"] == []


class Web(BaseHTTPRequestHandler):
    """A SearXNG server with one page."""

    def do_GET(self) -> None:
        found = json.dumps({"results": [{"title": "Towers", "url": "http://127.0.0.1:9/towers", "content": "It is 300 m tall."}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def searching(tmp_path: Path) -> Iterator[tuple[Gateway, Path]]:
    """A gateway with a web to search, whose model `scripted` follows a script, and the script's path."""
    web = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    folder = tmp_path / "gateway"
    folder.mkdir()
    script = folder / "script.json"
    script.write_text('["Nothing."]')
    gateway = start_gateway(
        folder,
        {"scripted": {"model_name": "scripted", "backend": "mock", "script": str(script), "max_context_length": 200_000}},
        free_port(),
        XDG_DATA_HOME=str(folder / "data"),
        MM_GATEWAY_SEARCH_PROVIDER="searxng",
        MM_GATEWAY_SEARCH_SEARXNG_URL=f"http://127.0.0.1:{web.server_port}",
    )
    yield gateway, script
    stop_gateway(gateway)
    web.shutdown()
    web.server_close()


def test_its_web_search_is_the_gateways(searching: tuple[Gateway, Path], project: Path) -> None:
    """It asks by a request of its own, for which a hook of its own brings another script."""
    gateway, script = searching
    script.write_text(json.dumps([{"calls": [{"name": "WebSearch", "arguments": {"query": "tall towers"}}]}]))
    within = script.with_name("within.json")
    within.write_text(json.dumps([{"calls": [{"name": "web_search", "arguments": {"query": "tall towers"}}]}, "It is 300 m tall [1]."]))
    hook = {"type": "command", "command": f"cp {within} {script}"}
    settings = json.dumps({"hooks": {"PreToolUse": [{"matcher": "WebSearch", "hooks": [hook]}]}})
    result = claude(gateway, project, "How tall?", "--model", "scripted", "--allowedTools", "WebSearch", "--settings", settings)
    assert (result["is_error"], result["result"]) == (False, "It is 300 m tall [1].")
    assert result["modelUsage"]["scripted"]["webSearchRequests"] == 1


def test_a_name_of_anthropics_leads_to_the_model_that_is_configured(scripted: tuple[Gateway, Path], project: Path) -> None:
    result = claude(scripted[0], project, "!mock tokens=5", "--model", "claude-sonnet-5")
    assert len(result["result"].split()) == 5


def test_an_error_is_shown_and_is_the_exit_status(scripted: tuple[Gateway, Path], project: Path) -> None:
    result = claude(scripted[0], project, "!mock error=400", "--model", "mock", status=1)
    assert result["is_error"] and "The mock was told to refuse this request" in result["result"]


def test_a_small_real_model_breaks_nothing(small_model: Gateway, project: Path) -> None:
    """Its prompt is longer than the context that SmolLM2 was trained on, and it says so."""
    result = claude(small_model, project, "What is in notes.txt?", "--model", "small", status=1)
    assert result["is_error"] and "too long" in result["result"]
    assert (project / "notes.txt").read_text() == "line one\n"
