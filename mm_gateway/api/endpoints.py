"""The table of endpoints: a row is a handler and what the API's description says of it. A new endpoint is a module and a row here."""

from __future__ import annotations

from mm_gateway.api.admin.endpoints import ADMIN_ROWS
from mm_gateway.api.chat import chat_completions
from mm_gateway.api.completions import completions
from mm_gateway.api.description import examples
from mm_gateway.api.description.endpoint import GET_ERRORS, MODEL_ERRORS, STORED_ERRORS, Endpoint
from mm_gateway.api.embeddings import embeddings
from mm_gateway.api.health import health, live, ping, ready, version
from mm_gateway.api.messages.endpoints import count_message_tokens, create_message
from mm_gateway.api.models import get_model, list_models
from mm_gateway.api.observation.exposition import metrics
from mm_gateway.api.responses.endpoints import compact_response, count_input_tokens, create_response
from mm_gateway.api.responses.stored_endpoints import cancel_response, delete_response, get_response, list_input_items
from mm_gateway.api.tokens import detokenize, tokenize
from mm_gateway.protocol import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    Completion,
    CompletionChunk,
    CompletionRequest,
    DetokenizeReply,
    DetokenizeRequest,
    EmbeddingList,
    EmbeddingRequest,
    Health,
    ModelCard,
    ModelList,
    Readiness,
    TokenizeReply,
    TokenizeRequest,
    Version,
)
from mm_gateway.protocol.message_request import CountTokensRequest, MessageRequest
from mm_gateway.protocol.messages import MessageReplyBody, MessageTokens
from mm_gateway.protocol.response_request import ResponseRequest
from mm_gateway.protocol.responses import CompactedResponse, DeletedResponse, InputTokens, ItemList, ResponseObject

_ROWS = (
    Endpoint(
        chat_completions,
        "Text",
        body=ChatCompletionRequest,
        reply=ChatCompletion,
        event=ChatCompletionChunk,
        errors=MODEL_ERRORS,
        examples={
            "conversation": {
                "model": "mock",
                "messages": [{"role": "system", "content": "Be brief."}, *examples.HELLO],
                "max_completion_tokens": 50,
                "temperature": 0.7,
            },
            "stream": {"model": "mock", "messages": examples.HELLO, "stream": True, "stream_options": {"include_usage": True}},
            "tools": {"model": "mock", "messages": examples.HELLO, "tools": [examples.CLOCK], "tool_choice": "required"},
            "tool result": {
                "model": "mock",
                "messages": [
                    *examples.HELLO,
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "call_1", "type": "function", "function": {"name": "get_time", "arguments": '{"city":"Paris"}'}}
                        ],
                    },
                    {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
                ],
                "tools": [examples.CLOCK],
            },
            "log-probabilities": {"model": "mock", "messages": examples.HELLO, "logprobs": True, "top_logprobs": 2, "n": 2, "seed": 7},
        },
        answer=examples.CHAT,
        stream=examples.CHAT_STREAM,
    ),
    Endpoint(
        completions,
        "Text",
        body=CompletionRequest,
        reply=Completion,
        event=CompletionChunk,
        errors=MODEL_ERRORS,
        examples={
            "text": {"model": "mock", "prompt": "Once upon a time", "max_tokens": 20, "stop": ["\n\n"]},
            "batch": {"model": "mock", "prompt": ["Once", "Twice"], "n": 2, "best_of": 3, "seed": 1},
            "scored": {"model": "mock", "prompt": [15496, 11, 995], "max_tokens": 0, "echo": True, "logprobs": 1},
        },
        answer=examples.COMPLETION,
        stream=examples.COMPLETION_STREAM,
    ),
    Endpoint(
        embeddings,
        "Embeddings",
        body=EmbeddingRequest,
        reply=EmbeddingList,
        errors=MODEL_ERRORS,
        examples={
            "text": {"model": "mock", "input": "The food was delicious."},
            "batch": {"model": "mock", "input": ["one text", "another"], "encoding_format": "base64"},
            "tokens": {"model": "mock", "input": [[15496, 11], [995]]},
        },
        answer=examples.EMBEDDINGS,
    ),
    Endpoint(
        tokenize,
        "Tokens",
        body=TokenizeRequest,
        reply=TokenizeReply,
        errors=MODEL_ERRORS,
        examples={
            "text": {"model": "mock", "prompt": "Hello, world", "return_token_strs": True},
            "conversation": {"model": "mock", "messages": examples.HELLO, "tools": [examples.CLOCK]},
        },
        answer={"count": 2, "max_model_len": 32768, "tokens": [15496, 995], "token_strs": ["Hello,", " world"]},
    ),
    Endpoint(
        detokenize,
        "Tokens",
        body=DetokenizeRequest,
        reply=DetokenizeReply,
        errors=MODEL_ERRORS,
        examples={"tokens": {"model": "mock", "tokens": []}},
        answer={"prompt": "Hello, world"},
    ),
    Endpoint(
        create_response,
        "Responses",
        body=ResponseRequest,
        reply=ResponseObject,
        events="Events are named as OpenAI names them; the last one is response.completed, response.incomplete or response.failed.",
        errors=MODEL_ERRORS,
        examples={
            "text": {"model": "mock", "input": "Hello!", "store": False},
            "conversation": {
                "model": "mock",
                "instructions": "Be brief.",
                "input": examples.HELLO,
                "max_output_tokens": 20,
                "stream": True,
            },
        },
        answer=examples.RESPONSE,
    ),
    Endpoint(
        count_input_tokens,
        "Responses",
        body=ResponseRequest,
        reply=InputTokens,
        errors=MODEL_ERRORS,
        examples={"text": {"model": "mock", "instructions": "Be brief.", "input": "Hello!"}},
        answer={"object": "response.input_tokens", "input_tokens": 11},
    ),
    Endpoint(
        compact_response,
        "Responses",
        body=ResponseRequest,
        reply=CompactedResponse,
        errors=MODEL_ERRORS,
        examples={"conversation": {"model": "mock", "input": examples.HELLO}},
        answer=examples.COMPACTED,
    ),
    Endpoint(get_response, "Responses", reply=ResponseObject, answer=examples.RESPONSE, errors=STORED_ERRORS),
    Endpoint(
        delete_response,
        "Responses",
        reply=DeletedResponse,
        answer={"id": "resp_1", "object": "response", "deleted": True},
        errors=STORED_ERRORS,
    ),
    Endpoint(cancel_response, "Responses", reply=ResponseObject, errors=STORED_ERRORS),
    Endpoint(list_input_items, "Responses", reply=ItemList, errors=STORED_ERRORS),
    Endpoint(
        create_message,
        "Messages",
        body=MessageRequest,
        reply=MessageReplyBody,
        events="Events are named as Anthropic names them; the last one is message_stop, or error.",
        errors=MODEL_ERRORS,
        examples={
            "text": {"model": "mock", "max_tokens": 20, "messages": examples.HELLO},
            "tools": {
                "model": "mock",
                "max_tokens": 200,
                "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
                "messages": examples.HELLO,
                "tools": [{"name": "get_time", "input_schema": examples.CLOCK["function"]["parameters"]}],
                "tool_choice": {"type": "any"},
                "stream": True,
            },
        },
        answer=examples.MESSAGE,
    ),
    Endpoint(
        count_message_tokens,
        "Messages",
        body=CountTokensRequest,
        reply=MessageTokens,
        errors=MODEL_ERRORS,
        examples={"text": {"model": "mock", "system": "Be brief.", "messages": examples.HELLO}},
        answer={"input_tokens": 3},
    ),
    Endpoint(list_models, "Models", reply=ModelList, answer={"object": "list", "data": [examples.CARD]}),
    Endpoint(
        get_model,
        "Models",
        reply=ModelCard,
        answer=examples.CARD,
        errors=(*GET_ERRORS, "NotFound"),
        parameters={"model_id": {"description": "A name or an alias; it may hold slashes.", "example": "mock"}},
    ),
    Endpoint(
        health,
        "Operation",
        reply=Health,
        answer={"status": "ok", "version": "0.1.0"},
        errors=("MethodNotAllowed", "Internal"),
        other_replies={"503": Health},
        security="",
    ),
    Endpoint(
        live,
        "Operation",
        reply=Health,
        answer={"status": "ok", "version": "0.1.0"},
        errors=("MethodNotAllowed", "Internal"),
        security="",
    ),
    Endpoint(
        ready,
        "Operation",
        reply=Readiness,
        answer={"ready": True, "reasons": []},
        errors=("MethodNotAllowed", "Internal"),
        other_replies={"503": Readiness},
        security="",
    ),
    Endpoint(ping, "Operation", errors=("MethodNotAllowed", "Internal"), security=""),
    Endpoint(
        metrics,
        "Operation",
        text="Metrics, one a line, as Prometheus reads them.",
        errors=("Unauthorized", "Forbidden", "MethodNotAllowed", "Internal"),
        security="metrics",
    ),
    Endpoint(version, "Operation", reply=Version, answer={"version": "0.1.0"}, errors=("MethodNotAllowed", "Internal"), security=""),
    *ADMIN_ROWS,
)

ENDPOINTS = {(endpoint.method, endpoint.path): endpoint for endpoint in _ROWS}
