"""Another OpenAI-compatible server as a Backend: the request in its words, its stream back event by event, its errors as ours.

Replies are always streamed from upstream, so that streamed and whole replies, and cancelling, work alike.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx
import msgspec

from mm_gateway.backends.tool_calls import new_call_id
from mm_gateway.backends.upstream.event_stream import EventStreamError, data_lines
from mm_gateway.backends.upstream.protocol import Choice, Chunk, Function, Logprobs, WireError
from mm_gateway.backends.upstream.replies import detokenized, embedding_events, embeddings_body, tokenized
from mm_gateway.chat_templates.tool_formats.format import declaration
from mm_gateway.configuration.settings import ModelConfig
from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    CompletionInput,
    EmbeddingInput,
    FinishReason,
    GenerationConfig,
    GenerationEvent,
    GenerationRequest,
    Grammar,
    Message,
    ModelInfo,
    TextDelta,
    Tokenized,
    TokenLogprob,
    ToolCallDelta,
    ToolUse,
    UrlCitation,
    Usage,
)
from mm_gateway.errors import ConfigurationError, UnsupportedParameterError, UpstreamError

CONNECT_TIMEOUT_S = 10.0
MAX_ERROR_BYTES = 64 * 2**10

P = ParamSpec("P")
T = TypeVar("T")

_chunk_decoder = msgspec.json.Decoder(Chunk)


class RemoteBackend:
    """One `backend: remote` entry of `models.yaml`.

    The upstream's key is read from the environment at each request; connections are kept and shared.
    """

    def __init__(self, name: str, config: ModelConfig, created: int) -> None:
        self._name = name
        self._config = config
        self._created = created
        self._client: httpx.AsyncClient | None = None

    def info(self) -> ModelInfo:
        return ModelInfo(
            id=self._name,
            created=self._created,
            backend="remote",
            context_length=self._config.max_context_length,
            aliases=self._config.aliases,
            details={"base_url": self._config.base_url, "model_name": self._config.model_name},
        )

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        if isinstance(request.input, EmbeddingInput):
            body = embeddings_body(request.input, self._config.model_name, request.user)
            for event in self._read(embedding_events, await self._ask(self._base + "/embeddings", body), len(request.input.inputs)):
                yield event
            return
        path, body = _upstream_body(request, request.input, self._config.model_name)
        async with self._post(self._base + path, body) as response:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise UpstreamError(f"{self._at()} answered a streaming request with {response.headers.get('content-type')}")
            async for event in self._events(response):
                yield event

    async def tokenize(self, input: str | ChatInput, *, add_special_tokens: bool = True, add_generation_prompt: bool = True) -> Tokenized:
        body = {"model": self._config.model_name, "return_token_strs": True}
        match input:
            case str():
                body |= {"prompt": input, "add_special_tokens": add_special_tokens}
            case ChatInput(messages, tools):
                body |= {"messages": [_message(message) for message in messages], "add_generation_prompt": add_generation_prompt}
                body |= {"tools": _tools(tools)["tools"]} if tools is not None else {}
        return self._read(tokenized, await self._ask_about_tokens("/tokenize", body))

    async def detokenize(self, tokens: Sequence[int]) -> str:
        body = {"model": self._config.model_name, "tokens": list(tokens)}
        return self._read(detokenized, await self._ask_about_tokens("/detokenize", body))

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    @property
    def _base(self) -> str:
        return (self._config.base_url or "").rstrip("/")

    @asynccontextmanager
    async def _post(self, url: str, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        """The reply to a request, its body not read yet; every failure typed."""
        try:
            async with self._http().stream("POST", url, json=body, headers=self._headers()) as response:
                if response.status_code != 200:
                    raise await self._refused(response)
                yield response
        except httpx.TimeoutException as error:
            raise UpstreamError(
                f"{self._at()} did not answer in time ({type(error).__name__}). Try again, or raise timeout_s", status=504
            ) from error
        except httpx.TransportError as error:
            raise UpstreamError(f"{self._at()} cannot be reached or broke off: {error or type(error).__name__}. Is it running?") from error

    async def _ask(self, url: str, body: dict[str, Any]) -> bytes:
        async with self._post(url, body) as response:
            return await response.aread()

    async def _ask_about_tokens(self, path: str, body: dict[str, Any]) -> bytes:
        try:
            # vLLM, whose convention this is, serves it beside /v1.
            return await self._ask(self._base.removesuffix("/v1") + path, body)
        except UpstreamError as error:
            if error.status in (404, 405, 501) and error.param != "model":
                text = f"The model `{self._name}` is served by a server that has no {path}"
                raise UnsupportedParameterError(text, param="model", code="unsupported_value") from error
            raise

    def _read(self, read: Callable[Concatenate[bytes, P], T], reply: bytes, *arguments: P.args, **named: P.kwargs) -> T:
        try:
            return read(reply, *arguments, **named)
        except (msgspec.MsgspecError, ValueError) as error:
            raise UpstreamError(f"{self._at()} sent a broken reply: {str(error)[:200]}") from error

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            timeout = httpx.Timeout(self._config.timeout_s, connect=CONNECT_TIMEOUT_S, pool=None)
            # Every request may be a long stream, so none may wait for a connection of another.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
            self._client = httpx.AsyncClient(timeout=timeout, limits=limits, follow_redirects=False)
        return self._client

    def _headers(self) -> dict[str, str]:
        name = self._config.api_key_env
        if name is None:
            return {}
        key = os.environ.get(name)
        if not key:
            raise ConfigurationError(f"model {self._name}: api_key_env names {name}, but that environment variable is not set")
        return {"authorization": f"Bearer {key}"}

    def _at(self) -> str:
        return f"The upstream server of {self._name} ({self._config.base_url})"

    async def _events(self, response: httpx.Response) -> AsyncIterator[GenerationEvent]:
        usage: Usage | None = None
        finished = done = False
        deltas = 0
        calls: set[tuple[int, int]] = set()
        try:
            async for data in data_lines(response.aiter_bytes()):
                if data == b"[DONE]":
                    done = True
                    break
                chunk = _chunk_decoder.decode(data)
                if chunk.error is not None:
                    raise self._reported(chunk.error)
                for choice in chunk.choices or ():
                    for event in _choice_events(choice):
                        deltas += isinstance(event, TextDelta)
                        if isinstance(event, ToolCallDelta):
                            if event.id is None and (event.index, event.call) not in calls:
                                raise UpstreamError(f"{self._at()} sent arguments of a tool call before its name")
                            calls.add((event.index, event.call))
                        finished = finished or isinstance(event, ChoiceFinished)
                        yield event
                if chunk.usage is not None:
                    usage = _usage(chunk)
        except (msgspec.MsgspecError, EventStreamError) as error:
            raise UpstreamError(f"{self._at()} sent a broken stream: {str(error)[:200]}") from error
        if not (done or finished):
            raise UpstreamError(f"{self._at()} ended its stream before the reply was complete")
        # A server without usage in streams: each of its chunks is taken for one token, the prompt for none.
        yield usage or Usage(0, deltas)

    def _reported(self, error: WireError | str) -> UpstreamError:
        if isinstance(error, str):
            return UpstreamError(f"{self._at()}: {error[:1000]}")
        return UpstreamError(
            f"{self._at()}: {(error.message or 'unknown error')[:1000]}",
            type=error.type or "server_error",
            param=error.param,
            code=None if error.code is None else str(error.code),
        )

    async def _refused(self, response: httpx.Response) -> UpstreamError:
        body = b""
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > MAX_ERROR_BYTES:
                break
        status = response.status_code
        if status in (401, 403):
            # Not the client's key is wrong but ours, so it must not look like a 401 of the gateway.
            return UpstreamError(f"{self._at()} refused the gateway's key ({status}). Check {self._config.api_key_env or 'api_key_env'}")
        try:
            found = msgspec.json.decode(body, type=Chunk).error
        except msgspec.MsgspecError:
            found = None
        error = self._reported(found or f"HTTP {status}")
        # Redirects and successes that are none are the upstream's mistake.
        error.status = status if status >= 400 else 502
        if status < 500 and error.type == "server_error":
            error.type = "rate_limit_error" if status == 429 else "invalid_request_error"
        retry_after = response.headers.get("retry-after", "")
        error.retry_after_s = float(retry_after) if retry_after.replace(".", "", 1).isdigit() else None
        return error


def _upstream_body(request: GenerationRequest, input: ChatInput | CompletionInput, model: str) -> tuple[str, dict[str, Any]]:
    """Path and body; only what the request sets is sent, because servers refuse what they do not know."""
    config = request.config
    body: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}, **_parameters(config)}
    if request.user is not None:
        body["user"] = request.user
    if request.workflow is not None:  # a gateway like this one
        body |= {"workflow": dict(request.workflow), "metadata": dict(request.metadata)}
    match input:
        case ChatInput(messages, tools, truncate):
            body["messages"] = [_message(message) for message in messages]
            if tools is not None:
                body |= _tools(tools)
            if truncate:
                raise UnsupportedParameterError(
                    "truncation: a remote model cannot be told to leave out the oldest turns. Send the conversation without them",
                    param="truncation",
                    code="unsupported_value",
                )
            if config.logprobs is not None:
                body["logprobs"] = True
                if config.logprobs:
                    body["top_logprobs"] = config.logprobs
            return "/chat/completions", body
        case CompletionInput(prompts, echo):
            if request.best_of is not None and request.best_of > config.n:
                raise UnsupportedParameterError("best_of cannot be streamed from a remote model", param="best_of")
            entries = [prompt if isinstance(prompt, str) else list(prompt) for prompt in prompts]
            body["prompt"] = entries[0] if len(entries) == 1 else entries
            if echo:
                body["echo"] = True
            if config.logprobs is not None:
                body["logprobs"] = config.logprobs
            return "/completions", body


def _message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(message)
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in message.tool_calls
        ]
        body["content"] = message.content or None
    return body


def _tools(use: ToolUse) -> dict[str, Any]:
    body: dict[str, Any] = {"tools": [declaration(tool) for tool in use.tools]}
    for entry, tool in zip(body["tools"], use.tools, strict=True):
        if tool.strict:
            entry["function"]["strict"] = True
    if use.only is not None:
        body["tool_choice"] = {"type": "function", "function": {"name": use.only}}
    elif use.required:
        body["tool_choice"] = "required"
    if not use.parallel and use.only is None:
        body["parallel_tool_calls"] = False
    return body


def _parameters(config: GenerationConfig) -> dict[str, Any]:
    renamed = {"max_new_tokens": "max_tokens"}
    apart = {"logprobs", "prompt_logprobs", "logit_bias", "stop", "grammar"}
    defaults = GenerationConfig()
    body: dict[str, Any] = {
        renamed.get(name, name): getattr(config, name)
        for name in config.__struct_fields__
        if name not in apart and getattr(config, name) != getattr(defaults, name)
    }
    if config.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in config.logit_bias.items()}
    if config.stop:
        body["stop"] = list(config.stop)
    if config.grammar is not None:
        body |= _grammar(config.grammar)
    return body


def _grammar(grammar: Grammar) -> dict[str, Any]:
    """In the words of the field that asked for it, so that a server refuses what it does not know."""
    match grammar.kind:
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case "json_schema" if not grammar.param.startswith("guided_"):
            schema = msgspec.json.decode(grammar.text)
            return {"response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}}}
        case "json_schema" | "choice":
            return {grammar.param: msgspec.json.decode(grammar.text)}
        case "regex" | "lark":
            return {grammar.param: grammar.text}


def _choice_events(choice: Choice) -> list[GenerationEvent]:
    text = choice.delta.content if choice.delta is not None else choice.text
    logprobs = _logprobs(choice.logprobs)
    events: list[GenerationEvent] = [TextDelta(choice.index, text or "", logprobs=logprobs)] if text or logprobs else []
    for annotation in (choice.delta.annotations if choice.delta is not None else None) or ():
        if (cited := annotation.url_citation) is not None:
            events.append(UrlCitation(choice.index, cited.start_index, cited.end_index, cited.title, cited.url))
    for call in (choice.delta.tool_calls if choice.delta is not None else None) or ():
        function = call.function or Function()
        id = (call.id or new_call_id()) if function.name else None  # some servers repeat the id with every piece
        events.append(ToolCallDelta(choice.index, call.index, function.arguments or "", id, function.name or None))
    if choice.finish_reason is not None:
        known: dict[str, FinishReason] = {"length": "length", "tool_calls": "tool_calls", "content_filter": "content_filter"}
        events.append(ChoiceFinished(choice.index, known.get(choice.finish_reason, "stop")))
    return events


def _logprobs(found: Logprobs | None) -> tuple[TokenLogprob, ...]:
    if found is None:
        return ()
    if found.content is not None:
        return tuple(
            TokenLogprob(
                entry.token,
                _bytes(entry.token, entry.bytes),
                entry.logprob,
                tuple((top.token, _bytes(top.token, top.bytes), top.logprob) for top in entry.top_logprobs or ()),
            )
            for entry in found.content
        )
    tops = found.top_logprobs or [None] * len(found.tokens or ())
    return tuple(
        TokenLogprob(token, _bytes(token, None), logprob, tuple((name, _bytes(name, None), value) for name, value in (top or {}).items()))
        for token, logprob, top in zip(found.tokens or (), found.token_logprobs or (), tops, strict=False)
    )


def _bytes(token: str, given: list[int] | None) -> tuple[int, ...]:
    return tuple(token.encode() if given is None else given)


def _usage(chunk: Chunk) -> Usage | None:
    usage = chunk.usage
    if usage is None or usage.prompt_tokens is None:
        return None
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
    reasoning = usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else None
    return Usage(usage.prompt_tokens, usage.completion_tokens or 0, cached or 0, reasoning or 0)
