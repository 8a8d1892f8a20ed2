"""Requests that nobody thought of: from the OpenAPI description by schemathesis, and near valid bodies by hypothesis.

Whatever comes in, what goes out is described, never our fault, and an error is in the envelope. Everything is seeded, so that
a run repeats; raise the numbers of examples to search.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from litestar.testing import TestClient
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode

from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.api.endpoints import ENDPOINTS
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import Settings, StorageSettings

ENVELOPE = {"message", "type", "param", "code"}
# Valid by the schema alone, and yet refused: mostly by name, or since fields contradict each other.
TOLERATED = ("positive_data_acceptance", "ignored_auth")  # the key is ours, whatever was made up for the case
UNSERVED = (
    "functions",
    "function_call",
    "audio",
    "web_search_options",
    "suffix",
    "reasoning_effort",
    "modalities",
)
DESCRIBED = [pytest.param(*key, id=" ".join(key)) for key, endpoint in ENDPOINTS.items() if "{" in key[1] or endpoint.body is not None]


def seeded(examples: int) -> Callable[[Any], Any]:
    return hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[check for check in HealthCheck if isinstance(check, HealthCheck)],
        phases=[Phase.explicit, Phase.generate],
    )


KEY = {"authorization": "Bearer key"}


def app_with(**models: ModelConfig) -> GatewayApp:
    settings = Settings(
        models={"mock": ModelConfig(model_name="mock", backend="mock"), **models},
        server=ServerSettings(api_keys=("key",), admin_keys=("key",)),
        storage=StorageSettings(folder=tempfile.mkdtemp()),
    )
    return create_app(settings, build_catalog(settings))


@pytest.fixture(scope="module")
def described() -> Any:
    """The description of an application that schemathesis drives by itself, in an event loop of its own."""
    return schemathesis.openapi.from_asgi("/schema/openapi.json", app_with())


@pytest.fixture(scope="module")
def client(gpt2_checkpoint: Path) -> Iterator[TestClient]:
    failed: list[threading.ExceptHookArgs] = []
    before = threading.excepthook
    threading.excepthook = failed.append  # a timer or an engine that dies fails no request, yet must not
    gpt2 = ModelConfig(model_name="gpt2", path=str(gpt2_checkpoint), device="cpu", dtype="fp32", model_type="gpt2")
    with TestClient(app_with(gpt2=gpt2)) as client:
        client.headers.update(KEY)
        warm_up = client.post("/v1/completions", json={"model": "gpt2", "prompt": "a", "max_tokens": 1})
        assert warm_up.status_code == 200
        yield client
    threading.excepthook = before
    assert failed == []


def check(reply: Any) -> None:
    """What holds of every reply."""
    assert reply.status_code < 500, reply.text
    # schemathesis has a list of values for each header
    headers = {name: value if isinstance(value, str) else value[0] for name, value in reply.headers.items()}
    assert headers["x-request-id"].startswith("req_")
    if reply.status_code != 200:
        assert headers["content-type"] == "application/json"
        body = reply.json()
        if body.get("type") == "error":  # Anthropic's
            assert set(body) == {"type", "error", "request_id"} and set(body["error"]) - {"details"} == {"type", "message"}
        else:
            assert set(body) == {"error"} and set(body["error"]) == ENVELOPE
        assert len(reply.content) < 8000


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "unfitting"])
@pytest.mark.parametrize(("method", "path"), DESCRIBED)
def test_what_the_description_allows_and_forbids(described: Any, method: str, path: str, mode: GenerationMode) -> None:
    if mode is GenerationMode.NEGATIVE and ENDPOINTS[method, path].body is None:
        pytest.skip("every path fits")
    excluded = [CHECKS.get_one(name) for name in TOLERATED]

    @given(case=described[path][method].as_strategy(generation_mode=mode), choice=st.integers(0, 5))
    @seeded(12 if mode is GenerationMode.POSITIVE else 6)
    def test(case: Any, choice: int) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict) and not path.startswith("/admin"):
            case.body["model"] = "nothing" if choice == 5 else "mock"
            if choice:
                case.body = {name: value for name, value in case.body.items() if name not in UNSERVED}
        reply = case.call(headers=KEY)
        case.validate_response(reply, excluded_checks=excluded)
        check(reply)

    test()


TEXTS = st.sampled_from(["", "Hi", "!mock tokens=2", "!mock error=429", "<|endoftext|>", "\ud800", "\x00", "\ufdd0", "é" * 40]) | st.text(
    max_size=12
)
NUMBERS = (
    st.sampled_from([0, 1, -1, 2, 0.5, 1e-320, 1e308, -(10**30), 2**63, 2**64, 10**400, 128, 129, 20, 21]) | st.floats() | st.integers()
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8)
ROLES = st.sampled_from(["user", "system", "assistant"])
PIECES = st.sampled_from(["v1", "models", "chat", "..", "%00", "%2f", "é", "admin", "load", ""])
SCHEMAS = st.sampled_from(
    [
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"$ref": "#/nowhere"},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}},
        {"type": "object", "minProperties": 2**40},
        {"type": "string", "enum": []},
        {"type": "array"},
        {},
    ]
)
TOOLS = st.builds(
    lambda name, parameters: {"type": "function", "function": {"name": name, "parameters": parameters}},
    st.sampled_from(["clock", "a-b", "f" * 64]),
    SCHEMAS | VALUES,
)
CALLS = st.builds(
    lambda id, name, arguments: {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}},
    st.sampled_from(["call_1", "call_2"]),
    st.sampled_from(["clock", "other"]),
    st.sampled_from(["{}", "", "{", "[1]", '{"a": "b"}', "NaN"]) | TEXTS,
)
PARTS = st.builds(lambda text: [{"type": "text", "text": text}], TEXTS)
MESSAGES = st.lists(
    st.one_of(
        st.builds(lambda role, content: {"role": role, "content": content}, ROLES, TEXTS | PARTS),
        st.builds(lambda calls: {"role": "assistant", "content": None, "tool_calls": calls}, st.lists(CALLS, max_size=2)),
        st.builds(lambda id, text: {"role": "tool", "tool_call_id": id, "content": text}, st.sampled_from(["call_1", "call_2"]), TEXTS),
    ),
    min_size=1,
    max_size=4,
)
TOKENS = st.lists(st.sampled_from([0, 5, 100, 2**31, -1, 10**20]) | st.integers(0, 300), max_size=4)
SAMPLING: dict[str, st.SearchStrategy[Any]] = {
    "max_tokens": st.integers(0, 4) | NUMBERS,
    "temperature": st.floats(0, 2) | NUMBERS,
    "top_p": st.floats(0, 1) | NUMBERS,
    "top_k": st.integers(-1, 5) | NUMBERS,
    "min_p": st.floats(0, 1) | NUMBERS,
    "presence_penalty": st.floats(-2, 2) | NUMBERS,
    "repetition_penalty": st.floats(0, 10) | NUMBERS,
    "seed": NUMBERS,
    "n": st.integers(1, 3) | NUMBERS,
    "stop": TEXTS | st.lists(TEXTS, max_size=5),
    "logit_bias": st.dictionaries(st.sampled_from(["0", "5", "-1", "٣", "9" * 30, "x", "1e3", "²"]), NUMBERS, max_size=3),
    "ignore_eos": st.booleans(),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}) | VALUES,
    "keep_alive": NUMBERS | st.sampled_from(["5m", "-1", "9" * 400 + "h", "0.0ms", "1e5s", "٣s"]) | TEXTS,
    "guided_regex": st.sampled_from(["[ab]{2}", "(", "a" * 500, "(a{1000}){1000}", "\\p{L}"]),
    "guided_json": SCHEMAS | TEXTS,
    "guided_choice": st.lists(TEXTS, max_size=3),
    "guided_grammar": st.sampled_from(['start: "a"', "start: start", "nonsense", "start: /(/"]) | TEXTS,
}
FIELDS: dict[str, tuple[dict[str, st.SearchStrategy[Any]], dict[str, st.SearchStrategy[Any]]]] = {
    "/v1/chat/completions": (
        {"messages": MESSAGES},
        {
            **SAMPLING,
            "tools": st.lists(TOOLS, max_size=2),
            "tool_choice": st.sampled_from(["auto", "none", "required", {"type": "function", "function": {"name": "clock"}}]) | VALUES,
            "parallel_tool_calls": st.booleans(),
            "logprobs": st.booleans(),
            "top_logprobs": NUMBERS,
            "response_format": st.sampled_from([{"type": "json_object"}, {"type": "text"}])
            | SCHEMAS.map(lambda schema: {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}})
            | VALUES,
        },
    ),
    "/v1/completions": (
        {"prompt": TEXTS | TOKENS | st.lists(TEXTS | TOKENS, max_size=3)},
        {**SAMPLING, "echo": st.booleans(), "logprobs": st.integers(0, 5) | NUMBERS, "best_of": st.integers(1, 4) | NUMBERS},
    ),
    "/v1/embeddings": (
        {"input": TEXTS | TOKENS | st.lists(TEXTS | TOKENS, max_size=3)},
        {"dimensions": NUMBERS, "encoding_format": st.sampled_from(["float", "base64", "int8"]), "keep_alive": SAMPLING["keep_alive"]},
    ),
    "/tokenize": (
        {},
        {
            "prompt": TEXTS,
            "messages": MESSAGES,
            "tools": st.lists(TOOLS, max_size=2),
            "add_special_tokens": st.booleans(),
            "add_generation_prompt": st.booleans(),
            "return_token_strs": st.booleans(),
        },
    ),
    "/detokenize": ({"tokens": TOKENS | st.lists(NUMBERS, max_size=3)}, {}),
}
DEEP = b"[" * 100_000
DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda body: body,
    lambda body: body,
    lambda body: body[: len(body) // 2],
    lambda body: body.replace(b'"', b"\xff", 1),
    lambda body: body[:-1] + b"," + body[1:],  # every key twice
    lambda body: b"\xef\xbb\xbf" + body,
    lambda body: body.decode().encode("utf-16"),
    lambda body: body + b"x",
    lambda body: body[:-1] + b',"user":' + DEEP,
    lambda body: b"",
    lambda body: b"null",
    lambda body: body[:-1] + b',"metadata":{"a":"' + b"x" * 5000 + b'"}}',
]


@st.composite
def near_valid(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path and a body: its fields mostly right, a few of them anything, and sometimes damage to the bytes."""
    path = draw(st.sampled_from(sorted(FIELDS)))
    required, optional = FIELDS[path]
    body: dict[str, Any] = {"model": draw(st.sampled_from(["mock", "gpt2", "gpt2", "nothing"]))}
    body |= {name: draw(strategy) for name, strategy in required.items()}
    for name in draw(st.lists(st.sampled_from(sorted(optional)), max_size=3, unique=True)) if optional else ():
        body[name] = draw(optional[name])
    if draw(st.integers(0, 5)) == 0:
        body[draw(st.sampled_from(sorted(body)) | TEXTS)] = draw(VALUES)
    # NaN, Infinity and lone surrogates are no JSON, and are sent all the same.
    text = json.dumps(body, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    return path, text if b"\xed" in text else draw(st.sampled_from(DAMAGES))(text)


@given(request=near_valid())
@seeded(150)
def test_no_body_is_the_servers_fault(client: TestClient, request: tuple[str, bytes]) -> None:
    path, body = request
    reply = client.post(path, content=body, headers={"content-type": "application/json"})
    if b"!mock error=" in body:  # told to fail
        assert reply.status_code in (200, 400, 404, 429)
    check(reply)


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS", "PROPFIND"]),
    path=st.lists(
        st.sampled_from(["v1", "models", "chat", "..", "%00", "%2f", "é", "admin", "load", ""]) | st.text(max_size=4), max_size=5
    ),
)
@seeded(60)
def test_no_path_is_the_servers_fault(client: TestClient, method: str, path: list[str]) -> None:
    target = "/" + "/".join(path).encode("utf-8", "replace").decode()
    try:
        reply = client.request(method, target)
    except Exception as error:  # noqa: BLE001 - its type is asserted; what is no URL cannot be sent
        assert type(error).__name__ == "InvalidURL"
        return
    assert reply.status_code < 500
    if reply.status_code >= 400 and method != "HEAD":
        assert set(reply.json()["error"]) == ENVELOPE
