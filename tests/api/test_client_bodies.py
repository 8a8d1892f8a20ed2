"""What clients send that cannot be run here, written anew from what their makers publish of them: every body is served, nothing left out.

Sources: Cline (github.com/cline/cline, provider OpenAI Compatible), Continue (docs.continue.dev, provider openai), Zed (zed.dev/docs/ai,
openai_compatible), Open WebUI (docs.openwebui.com, OpenAI connections), n8n (docs.n8n.io, OpenAI Chat Model and AI Agent, by LangChain),
Home Assistant (integration OpenAI Conversation; Extended OpenAI Conversation for a server of one's own).
"""

from __future__ import annotations

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.core import ChoiceFinished, TextDelta, Usage
from tests.support.scripted_backend import ScriptedBackend, app_over

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(*texts: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}


def function(called: str, /, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"name": called, "description": f"Does {called}.", "parameters": schema}


PATH = {"type": "string", "description": "A path."}
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "read_file", "arguments": '{"path": "a.py"}'}}
CALLED = [
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "print(1)"},
]
FIM_STOPS = ["<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"]
FIM_STOPS += ["<|im_start|>", "<|im_end|>", "/src/", "#- coding: utf-8", "```", "\nfunction", "\nclass"]

BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Cline": (
        CHAT,
        {
            "messages": [
                system("You are a software engineer."),
                user("<task>Fix it</task>", "<environment_details>a.py</environment_details>"),
            ],
            "temperature": 0,
            "reasoning_effort": "medium",
            **STREAMED,
        },
    ),
    "Cline, with native tools": (
        CHAT,
        {
            "messages": [system("You are a software engineer."), user("Fix it"), *CALLED, user("Go on")],
            "tools": [{"type": "function", "function": {**function("read_file", path=PATH), "strict": False}}],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
            "temperature": 0,
            "max_completion_tokens": 64,
            **STREAMED,
        },
    ),
    "Continue, a chat": (
        CHAT,
        {
            "messages": [system("Answer in Markdown."), {"role": "user", "content": "Why?"}],
            "max_tokens": 64,
            "temperature": 0.5,
            "stream": True,
        },
    ),
    "Continue, its agent": (
        CHAT,
        {
            "messages": [system("Use tools."), user("Why?"), *CALLED],
            "tools": [{"type": "function", "function": function("read_file", path=PATH)}],
            "max_tokens": 64,
            "parallel_tool_calls": False,
            **STREAMED,
        },
    ),
    "Continue, completing": (
        COMPLETIONS,
        {
            "prompt": "<|fim_prefix|>def f(<|fim_suffix|>\n<|fim_middle|>",
            "max_tokens": 64,
            "temperature": 0.01,
            "stop": FIM_STOPS,
            "stream": True,
        },
    ),
    "Zed": (
        CHAT,
        {
            "messages": [system("You are an agent."), user("Why?"), *CALLED],
            "stop": [],
            "temperature": 1.0,
            "tool_choice": "auto",
            "parallel_tool_calls": False,
            "tools": [{"type": "function", "function": function("read_file", path=PATH)}],
            "max_completion_tokens": 64,
            "prompt_cache_key": "thread-1",
            **STREAMED,
        },
    ),
    "Open WebUI": (CHAT, {"messages": [{"role": "user", "content": "Why?"}], "temperature": 0.8, "max_tokens": 64, **STREAMED}),
    "Open WebUI, a title": (
        CHAT,
        {"messages": [{"role": "user", "content": "### Task: a title, as JSON"}], "stream": False, "max_completion_tokens": 64},
    ),
    "n8n, a chat": (
        CHAT,
        {
            "messages": [system("Help."), {"role": "user", "content": "Why?"}],
            "temperature": 0.7,
            "top_p": 1,
            "frequency_penalty": 0,
            "presence_penalty": 0,
            "n": 1,
            "response_format": {"type": "text"},
            "stream": False,
        },
    ),
    "n8n, an agent": (
        CHAT,
        {
            "messages": [system("Help."), {"role": "user", "content": "Why?"}, *CALLED],
            "tools": [{"type": "function", "function": function("read_file", path=PATH)}],
            "stop": ["Observation:"],
            **STREAMED,
        },
    ),
    "n8n, by responses": (
        RESPONSES,
        {
            "input": [{"role": "system", "content": "Help."}, {"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}],
            "tools": [{"type": "function", **function("read_file", path=PATH), "strict": None}],
            "store": False,
            "parallel_tool_calls": True,
            "stream": True,
        },
    ),
    "Home Assistant": (
        RESPONSES,
        {
            "input": [
                {"type": "message", "role": "developer", "content": "You are a voice assistant."},
                {"type": "message", "role": "user", "content": "Lights on"},
                {"type": "function_call", "call_id": "c1", "name": "HassTurnOn", "arguments": '{"name": "lamp"}'},
                {"type": "function_call_output", "call_id": "c1", "output": '{"success": true}'},
            ],
            "tools": [{"type": "function", **function("HassTurnOn", name=PATH), "strict": False}],
            "max_output_tokens": 64,
            "user": "conversation-1",
            "store": False,
            "service_tier": "auto",
            "temperature": 1.0,
            "top_p": 1.0,
            "stream": True,
        },
    ),
    "Home Assistant, Extended OpenAI Conversation": (
        CHAT,
        {
            "messages": [system("Home."), {"role": "user", "content": "Lights on", "name": "resident"}],
            "max_tokens": 64,
            "top_p": 1,
            "temperature": 0.5,
            "user": "conversation-1",
            "tools": [{"type": "function", "function": function("execute_services", list={"type": "array", "items": {"type": "object"}})}],
            "tool_choice": "auto",
        },
    ),
}


@pytest.mark.parametrize("client", BODIES)
async def test_what_a_client_sends_is_served_with_nothing_left_out(client: str) -> None:
    path, body = BODIES[client]
    backend = ScriptedBackend([TextDelta(0, "Because."), ChoiceFinished(0, "stop"), Usage(3, 1)])
    async with AsyncTestClient(app_over(backend)) as http:
        reply = await http.post(path, json={"model": "scripted", **body})
    assert reply.status_code == 200, reply.text
    assert "Because." in reply.text and "x-mm-gateway-ignored" not in reply.headers


async def test_open_webui_and_n8n_find_the_models_by_their_listing() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend([]))) as http:
        listing = (await http.get("/v1/models")).json()
    assert listing["object"] == "list" and listing["data"][0]["id"] == "scripted"
