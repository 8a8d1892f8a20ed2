"""LangChain's own suite for chat models, run with its ChatOpenAI against the built-in model.

Tests that are overridden are those that do not apply, each with its reason; where the reason is that the gateway
refuses something, the refusal is what is tested.
"""

from __future__ import annotations

from typing import Any, Literal

import openai
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from compat_tests.support.gateways import Gateway
from compat_tests.support.langchain import sum_of

# ChatOpenAI keeps its connections beyond a test, so all have to share an event loop.
pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.filterwarnings("ignore:.*marked with '@pytest.mark.asyncio' but it is not an async function"),
]

beyond_it = pytest.mark.xfail(reason="asks more than a model of six million parameters can do reliably")
not_served = pytest.mark.xfail(
    reason="text models only: other kinds of content are refused by name", raises=openai.BadRequestError, strict=True
)
PICTURE = "data:image/png;base64,iVBORw0KGgo="
DOCUMENT = {"type": "file", "base64": "JVBERi0xLjQK", "mime_type": "application/pdf", "filename": "a.pdf"}
UsageDetail = Literal["audio_input", "audio_output", "reasoning_output", "cache_read_input", "cache_creation_input"]


class TestChatOpenAI(ChatModelIntegrationTests):
    """Everything of the suite that applies."""

    @pytest.fixture(autouse=True)
    def _served(self, gateway: Gateway) -> None:
        self._address = gateway.address

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "base_url": f"{self._address}/v1",
            "api_key": "none",
            "model": "tiny-chat",
            "seed": 1,
            "stream_usage": True,
            "max_tokens": 200,
        }

    @property
    def model_override_value(self) -> str:
        return "llama"

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> dict[Literal["invoke", "stream"], list[UsageDetail]]:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        model = ChatOpenAI(**self.chat_model_params)
        messages = [HumanMessage("What was said before is read from the cache. " * 4)]
        model.invoke(messages)
        if not stream:
            return model.invoke(messages)
        return sum_of(model.stream(messages))

    @beyond_it
    def test_unicode_tool_call_integration(
        self, model: BaseChatModel, *, tool_choice: str | None = None, force_tool_call: bool = True
    ) -> None:
        super().test_unicode_tool_call_integration(model, tool_choice=tool_choice, force_tool_call=force_tool_call)

    @not_served
    def test_image_inputs(self, model: BaseChatModel) -> None:
        model.invoke([HumanMessage([{"type": "image_url", "image_url": {"url": PICTURE}}])])

    @not_served
    def test_image_tool_message(self, model: BaseChatModel) -> None:
        self._after_call(model, {"type": "image_url", "image_url": {"url": PICTURE}})

    @not_served
    def test_pdf_inputs(self, model: BaseChatModel) -> None:
        model.invoke([HumanMessage([DOCUMENT])])

    @not_served
    def test_pdf_tool_message(self, model: BaseChatModel) -> None:
        self._after_call(model, DOCUMENT)

    @not_served
    def test_audio_inputs(self, model: BaseChatModel) -> None:
        model.invoke([HumanMessage([{"type": "audio", "mime_type": "audio/wav", "base64": "UklGRg=="}])])

    @not_served
    def test_anthropic_inputs(self, model: BaseChatModel) -> None:
        source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
        model.invoke([HumanMessage([{"type": "image", "source": source}])])

    @pytest.mark.xfail(reason="measures LangChain by replaying recorded replies; there is nothing recorded of a live server", run=False)
    def test_stream_time(self, model: BaseChatModel, benchmark: object = None, vcr: object = None) -> None:
        """Not run."""

    def _after_call(self, model: BaseChatModel, part: dict[str, Any]) -> None:
        call = {"name": "draw", "args": {}, "id": "call_1", "type": "tool_call"}
        model.invoke([HumanMessage("Draw"), AIMessage("", tool_calls=[call]), ToolMessage([part], tool_call_id="call_1")])
