"""From a body's bytes to a GenerationRequest: decoding, names of wrong fields, and what is not served yet refused by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from mm_gateway.api.chat_messages import read_messages
from mm_gateway.api.tools import read_tools
from mm_gateway.core import MAX_CHOICES, ChatInput, CompletionInput, GenerationConfig, GenerationRequest, Grammar
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError
from mm_gateway.protocol import ChatCompletionRequest, CompletionRequest, ResponseFormat, SamplingFields

Body = TypeVar("Body", bound=msgspec.Struct)

_AT = re.compile(r"^(?P<what>.*?) - at `(?:key in )?\$(?P<path>.*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$", re.DOTALL)
_DURATION = re.compile(r"(?P<number>-?\d+(?:\.\d+)?)(?P<unit>ms|s|m|h)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
MAX_PROMPTS = 2048


def decode(decoder: msgspec.json.Decoder[Body], body: bytes) -> Body:
    """Decode a body.

    Raises:
        InvalidRequestError: no JSON, or a field that is unknown, missing or of the wrong type; `param` names it.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise named(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"We could not parse the JSON body of your request: {str(error)[:200]}") from None


def chat_request(body: ChatCompletionRequest, request_id: str) -> GenerationRequest:
    """What a chat body asks for.

    Raises:
        InvalidRequestError: a value out of range; UnsupportedParameterError: something that is not served.
    """
    _refuse_unserved_chat(body)
    if not body.messages:
        raise InvalidRequestError("messages must hold at least one message", param="messages", code="empty_array")
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequestError("top_logprobs needs logprobs to be true", param="top_logprobs")
    limit_name = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    limits = [limit for limit in (body.max_completion_tokens, body.max_tokens) if limit is not None]
    if len(set(limits)) > 1:
        raise InvalidRequestError("max_tokens and max_completion_tokens are the same limit; give one of them", param="max_tokens")
    tools = read_tools(body)
    grammar = _grammar(body, body.response_format)
    if tools is not None and grammar is not None and not grammar.param.startswith("response_format"):
        raise InvalidRequestError(f"tools and {grammar.param} exclude each other", param=grammar.param)
    return GenerationRequest(
        request_id=request_id,
        model=body.model,
        input=ChatInput(read_messages(body.messages), tools),
        config=generation_config(
            body,
            n=body.n,
            max_new_tokens=limits[0] if limits else None,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            names={"max_new_tokens": limit_name, "logprobs": "top_logprobs"},
            grammar=grammar,
        ),
        keep_alive=keep_alive_s(body.keep_alive),
        metadata=body.metadata or {},
        workflow=body.workflow,
        user=body.user,
    )


def completion_request(body: CompletionRequest, request_id: str) -> GenerationRequest:
    """What a completion body asks for; errors as for `chat_request`."""
    if body.suffix:
        raise UnsupportedParameterError("suffix is not supported by this server", param="suffix")
    prompts = texts_or_tokens(body.prompt, "prompt")
    n = body.n or 1
    if body.best_of is not None and not n <= body.best_of <= MAX_CHOICES:
        raise InvalidRequestError(f"best_of must be between n ({n}) and {MAX_CHOICES}, got {body.best_of}", param="best_of")
    if body.stream and body.best_of is not None and body.best_of > n:
        raise InvalidRequestError("best_of greater than n cannot be streamed", param="best_of")
    if len(prompts) * max(n, body.best_of or 1) > MAX_PROMPTS:
        raise InvalidRequestError(f"prompts times n must not exceed {MAX_PROMPTS}", param="prompt")
    echo = bool(body.echo)
    return GenerationRequest(
        request_id=request_id,
        model=body.model,
        input=CompletionInput(prompts, echo=echo),
        config=generation_config(
            body,
            n=body.n,
            # OpenAI's default for this endpoint.
            max_new_tokens=16 if body.max_tokens is None else body.max_tokens,
            logprobs=body.logprobs,
            names={"max_new_tokens": "max_tokens"},
            grammar=_grammar(body, None),
            prompt_logprobs=echo and body.logprobs is not None,
        ),
        best_of=body.best_of,
        keep_alive=keep_alive_s(body.keep_alive),
        user=body.user,
    )


def generation_config(
    body: SamplingFields,
    *,
    max_new_tokens: int | None,
    n: int | None = None,
    logprobs: int | None,
    names: Mapping[str, str],
    grammar: Grammar | None,
    prompt_logprobs: bool = False,
) -> GenerationConfig:
    """names: field of GenerationConfig -> field of the body, where they differ; an error names the latter."""
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    try:
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            min_p=body.min_p or 0.0,
            presence_penalty=body.presence_penalty or 0.0,
            frequency_penalty=body.frequency_penalty or 0.0,
            repetition_penalty=body.repetition_penalty,
            logit_bias=_logit_bias(body.logit_bias or {}),
            seed=body.seed,
            stop=stop,
            ignore_eos=bool(body.ignore_eos),
            n=1 if n is None else n,
            logprobs=logprobs,
            grammar=grammar,
            prompt_logprobs=prompt_logprobs,
        )
    except InvalidRequestError as error:
        field = error.param
        if field is None or field not in names:
            raise
        raise InvalidRequestError(str(error).replace(field, names[field], 1), param=names[field]) from None


def _grammar(body: ChatCompletionRequest | CompletionRequest, form: ResponseFormat | None) -> Grammar | None:
    """What constrains the output: response_format, or one of the guided_… extensions."""
    found: list[Grammar] = []
    if form is not None and form.type == "json_object":
        found.append(Grammar("json_object"))
    elif form is not None and form.type == "json_schema":
        if form.json_schema is None:
            raise InvalidRequestError("You must provide the parameter: response_format.json_schema", param="response_format.json_schema")
        schema = form.json_schema.schema
        kind = "json_object" if schema is None else "json_schema"
        found.append(Grammar(kind, msgspec.json.encode(schema).decode(), "response_format.json_schema.schema"))
    if body.guided_json is not None:
        text = body.guided_json if isinstance(body.guided_json, str) else msgspec.json.encode(body.guided_json).decode()
        found.append(Grammar("json_schema", text, "guided_json"))
    if body.guided_regex is not None:
        found.append(Grammar("regex", body.guided_regex, "guided_regex"))
    if body.guided_choice is not None:
        if not body.guided_choice:
            raise InvalidRequestError("guided_choice must hold at least one text", param="guided_choice")
        found.append(Grammar("choice", msgspec.json.encode(body.guided_choice).decode(), "guided_choice"))
    if body.guided_grammar is not None:
        found.append(Grammar("lark", body.guided_grammar, "guided_grammar"))
    if len(found) > 1:
        raise InvalidRequestError(f"{found[0].param} and {found[1].param} exclude each other", param=found[1].param)
    return found[0] if found else None


def _refuse_unserved_chat(body: ChatCompletionRequest) -> None:
    unserved: dict[str, Any] = {
        "functions": body.functions,
        "function_call": None if body.function_call in ("none", "auto") else body.function_call,
        "modalities": None if body.modalities == ["text"] else body.modalities,
        "audio": body.audio,
        "prediction": body.prediction,
        "reasoning_effort": None if body.reasoning_effort == "none" else body.reasoning_effort,
        "verbosity": None if body.verbosity == "medium" else body.verbosity,
        "web_search_options": body.web_search_options,
    }
    for name, value in unserved.items():
        if value:
            raise UnsupportedParameterError(f"{name} is not supported by this server", param=name)


def texts_or_tokens(given: str | list[str | int | list[int]] | None, param: str) -> tuple[str | tuple[int, ...], ...]:
    """What a field holds that takes a text, texts, token ids, or lists of token ids: one entry each.

    Raises:
        InvalidRequestError: nothing, or different kinds.
    """
    if given is None:
        raise InvalidRequestError(f"You must provide the parameter: {param}", param=param)
    if isinstance(given, str):
        return (given,)
    kinds = {type(entry) for entry in given}
    if len(kinds) != 1:
        what = "must not be empty" if not kinds else "must be a text, a list of texts, token ids, or a list of lists of token ids"
        raise InvalidRequestError(f"{param} {what}", param=param)
    ids = tuple(entry for entry in given if isinstance(entry, int))
    if ids:
        return (ids,)
    return tuple(tuple(entry) if isinstance(entry, list) else entry for entry in given if not isinstance(entry, int))


def _logit_bias(biases: dict[str, float]) -> dict[int, float]:
    for token in biases:
        if not token.isdecimal():
            raise InvalidRequestError(f"logit_bias: '{token[:50]}' is no token id", param="logit_bias")
    return {int(token): bias for token, bias in biases.items()}


def keep_alive_s(value: float | str | None) -> float | None:
    """Seconds; a text may carry a unit as in `5m`. Negative: for good."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise InvalidRequestError("keep_alive must be seconds or a text such as '5m'", param="keep_alive")
        value = float(match["number"]) * _UNIT_S[match["unit"]]
    return float("inf") if value is not None and value < 0 else value


def named(message: str, at: str = "") -> InvalidRequestError:
    """msgspec's message as OpenAI words it, with the path of the field. at: path of what was decoded."""
    match = _AT.match(message)
    what, path = (match["what"], match["path"]) if match else (message, "")
    path = (at + path).lstrip(".")
    param = path.replace("[...]", "") or None
    if unknown := _UNKNOWN.match(what):
        name = f"{path}.{unknown['name']}" if path else unknown["name"]
        return InvalidRequestError(f"Unrecognized request argument supplied: {name[:200]}", param=name[:200])
    if missing := _MISSING.match(what):
        name = f"{path}.{missing['name']}" if path else missing["name"]
        return InvalidRequestError(f"You must provide the parameter: {name}", param=name)
    return InvalidRequestError(f"Invalid value for '{param}': {what[:300]}" if param else what[:300], param=param)
