"""search-qa as users reach it: an index built by the command line, the official client streaming and not, curl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest

from compat_tests.support.gateways import Gateway, free_port, start_gateway, stop_gateway

PIECES = ["The dome ", "opens on ", "Fridays [", "1", "]", ". Bring a coat [1", "]."]
FILES = {
    "dome.md": "# Observatory\n\n## Visiting hours\n\nThe dome is open on Fridays from eight. Bring a coat.\n",
    "天文台.md": "# 天文台\n\n## 开放时间\n\n圆顶每周五晚上八点开放，请带上外套。\n",
}


class CitingModel(BaseHTTPRequestHandler):
    """An OpenAI-compatible server whose model always answers with citations."""

    prompts: list[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.prompts.append(body["messages"][-1]["content"])  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        chunks = [{"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in PIECES]
        chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
        chunks += [{"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27}}]
        self.wfile.write(b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks) + b"data: [DONE]\n\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def citing() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), CitingModel)
    server.prompts = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def searching(tmp_path_factory: pytest.TempPathFactory, citing: ThreadingHTTPServer) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("search")
    (folder / "files").mkdir()
    for name, text in FILES.items():
        (folder / "files" / name).write_text(text)
    data = {"XDG_DATA_HOME": str(folder / "data")}
    command = [sys.executable, "-m", "mm_gateway.main", "index", str(folder / "files")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **data}, timeout=60)
    assert done.stdout.startswith("2 added"), done.stdout + done.stderr
    upstream = f"http://127.0.0.1:{citing.server_port}/v1"
    models: dict[str, dict[str, object]] = {
        "citing": {"model_name": "m", "backend": "remote", "base_url": upstream},
        "mock": {"model_name": "mock", "backend": "mock"},
    }
    started = start_gateway(folder, models, free_port(), **data)
    yield started
    stop_gateway(started)


@pytest.fixture
def client(searching: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{searching.address}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_a_whole_reply_has_typed_annotations_and_tells_its_steps(client: openai.OpenAI, citing: ThreadingHTTPServer) -> None:
    reply = client.chat.completions.create(
        model="mm-orch/search-qa",
        messages=[{"role": "user", "content": "When is the dome open?"}],
        extra_body={"workflow": {"max_results": 2}},
    )
    message = reply.choices[0].message
    assert message.content is not None and message.content == "".join(PIECES)
    assert message.annotations is not None
    for annotation, start in zip(message.annotations, (26, 44), strict=True):
        citation = annotation.url_citation
        assert annotation.type == "url_citation"
        assert (citation.start_index, citation.end_index) == (start, start + 3)
        assert message.content[citation.start_index : citation.end_index] == "[1]"
        assert citation.title == "Observatory › Visiting hours"
        assert citation.url.startswith("file://") and citation.url.endswith("/files/dome.md#visiting-hours")
    assert reply.model_extra is not None
    workflow = reply.model_extra["workflow"]
    assert [step["name"] for step in workflow["steps"]] == ["search", "fetch", "summarize", "answer"]
    assert workflow["degraded"] is False
    assert reply.usage is not None and reply.usage.total_tokens == 27
    assert "The dome is open on Fridays" in citing.prompts[-1]  # type: ignore[attr-defined]


def test_a_stream_carries_the_same_annotations_as_they_arise(client: openai.OpenAI) -> None:
    text, annotations = "", []
    for chunk in client.chat.completions.create(
        model="mm-orch/search-qa@citing", messages=[{"role": "user", "content": "圆顶什么时候开放？"}], stream=True
    ):
        delta = chunk.choices[0].delta
        for annotation in (delta.model_extra or {}).get("annotations", []):
            citation = annotation["url_citation"]
            annotations.append((citation["title"], text[citation["start_index"] : citation["end_index"]], len(text)))
        text += delta.content or ""
    assert text == "".join(PIECES)
    assert annotations == [("天文台 › 开放时间", "[1]", 29), ("天文台 › 开放时间", "[1]", 48)]


def test_nothing_found_is_said_in_the_questions_language(client: openai.OpenAI) -> None:
    for question, says in (("Who won the cup of 1954?", "Nothing was found"), ("量子纠缠是什么？", "没有找到")):
        reply = client.chat.completions.create(model="mm-orch/search-qa", messages=[{"role": "user", "content": question}])
        assert says in (reply.choices[0].message.content or "")
        assert reply.model_extra is not None and reply.model_extra["workflow"]["degraded"] is True


def test_the_mock_answers_too_and_a_wrong_parameter_is_named(client: openai.OpenAI) -> None:
    messages: list = [{"role": "user", "content": "dome"}]
    assert client.chat.completions.create(model="mm-orch/search-qa@mock", messages=messages, max_tokens=3).choices[0].message.content
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="mm-orch/search-qa", messages=messages, extra_body={"workflow": {"max_results": 99}})
    assert caught.value.param == "workflow.max_results"


def test_curl_sees_the_stages_as_comments_before_the_answer(searching: Gateway) -> None:
    body = {"model": "mm-orch/search-qa", "messages": [{"role": "user", "content": "dome"}], "stream": True}
    command = ["curl", "-sSN", f"{searching.address}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", json.dumps(body)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split("\n\n")
    deltas = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"] for line in lines if line.startswith("data: {")]
    assert "".join(delta.get("content", "") for delta in deltas) == "".join(PIECES)
    assert sum("annotations" in delta for delta in deltas) == 2
    assert all(line.startswith((":", "data: ")) for line in lines if line)


def test_it_is_listed_with_its_parameters(client: openai.OpenAI) -> None:
    listed = next(model for model in client.models.list() if model.id == "mm-orch/search-qa")
    assert "max_results" in json.dumps(listed.model_dump())
