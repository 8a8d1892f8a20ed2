"""From the fields that every generating endpoint shares to a GenerationConfig; texts, token ids, grammars and times as bodies give them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mm_gateway.core import GenerationConfig, Grammar
from mm_gateway.core.limits import MAX_LOGPROB_ENTRIES, MAX_PROMPTS
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol import ChatCompletionRequest, CompletionRequest, GenerationFields, SamplingFields, StructuredOutputs
from mm_gateway.runtime.grammars.gbnf import is_gbnf

_DURATION = re.compile(r"(?P<number>-?\d+(?:\.\d+)?)(?P<unit>ms|s|m|h)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_UNLIMITED_TOKENS = 8192
"""What a choice without a limit of its own counts for where log-probabilities are bounded."""


def generation_config(
    body: SamplingFields,
    *,
    max_new_tokens: int | None,
    n: int | None = None,
    logprobs: int | None,
    grammar: Grammar | None,
    end_logprobs: bool = False,
    prompt_logprobs: int | None = None,
    return_token_ids: bool = False,
    prediction: str = "",
) -> GenerationConfig:
    """How a body wants its prompt to be continued. Its fields are within their ranges, since it was decoded."""
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=body.repetition_penalty,
        logit_bias=body.logit_bias or {},
        seed=body.seed,
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        include_stop_str_in_output=bool(body.include_stop_str_in_output),
        min_tokens=body.min_tokens or 0,
        bad_words=tuple(body.bad_words or ()),
        skip_special_tokens=body.skip_special_tokens is not False,
        ignore_eos=bool(body.ignore_eos),
        n=1 if n is None else n,
        logprobs=logprobs,
        grammar=grammar,
        end_logprobs=end_logprobs,
        prompt_logprobs=prompt_logprobs,
        return_token_ids=return_token_ids,
        speculation=body.speculation is not False,
        prediction=prediction,
        return_tokens_as_token_ids=isinstance(body, GenerationFields) and bool(body.return_tokens_as_token_ids),
    )


def check_logprob_entries(choices: int, logprobs: int | None, max_tokens: int | None, *, limit_field: str, logprobs_field: str) -> None:
    """Raises:
    InvalidRequestError: choices times tokens times log-probabilities of each are more than one reply may hold.
    """
    if logprobs is None:
        return
    tokens = _UNLIMITED_TOKENS if max_tokens is None else max_tokens
    entries = choices * tokens * (1 + logprobs)
    if entries > MAX_LOGPROB_ENTRIES:
        raise InvalidRequestError(
            f"Log-probabilities of {choices} choices with {logprobs_field} {logprobs} and {limit_field} "
            f"{max_tokens if max_tokens is not None else f'not set, which counts as {tokens},'} would be {entries} entries; "
            f"a request takes up to {MAX_LOGPROB_ENTRIES}. Reduce one of them",
            param=logprobs_field,
        )


def read_grammar(body: ChatCompletionRequest | CompletionRequest) -> Grammar | None:
    """What constrains the output: response_format, structured_outputs, or one of the guided_… extensions.

    Raises:
        InvalidRequestError: one of them is not complete, or there are two.
    """
    found: list[Grammar] = []
    form = body.response_format
    if form is not None and form.type == "json_object":
        found.append(Grammar("json_object"))
    elif form is not None and form.type == "json_schema":
        if form.json_schema is None:
            raise InvalidRequestError("You must provide the parameter: response_format.json_schema", param="response_format.json_schema")
        schema = form.json_schema.schema
        kind = "json_object" if schema is None else "json_schema"
        found.append(Grammar(kind, msgspec.json.encode(schema).decode(), "response_format.json_schema.schema"))
    elif form is not None and form.type == "structural_tag":
        parts = {"format": form.format, "structures": form.structures, "triggers": form.triggers}
        found.append(_structural_tag({name: value for name, value in parts.items() if value is not None}, "response_format"))
    guided = StructuredOutputs(json=body.guided_json, regex=body.guided_regex, choice=body.guided_choice, grammar=body.guided_grammar)
    return only_grammar([*found, *_grammars(guided, "guided_"), *structured_outputs(body.structured_outputs)])


def structured_outputs(field: StructuredOutputs | None) -> list[Grammar]:
    """Each kind that the field holds.

    Raises:
        InvalidRequestError: it is there and holds none.
    """
    if field is None:
        return []
    found = _grammars(field, "structured_outputs.")
    if not found:
        text = "structured_outputs must hold one of json, regex, choice, grammar, json_object and structural_tag"
        raise InvalidRequestError(text, param="structured_outputs")
    return found


def only_grammar(found: Sequence[Grammar]) -> Grammar | None:
    """Raises:
    InvalidRequestError: there are two.
    """
    if len(found) > 1:
        raise InvalidRequestError(f"{found[0].param} and {found[1].param} exclude each other", param=found[1].param)
    return found[0] if found else None


def _grammars(fields: StructuredOutputs, prefix: str) -> list[Grammar]:
    """prefix: of the fields' names in the body."""
    found: list[Grammar] = []
    if fields.json is not None:
        text = fields.json if isinstance(fields.json, str) else msgspec.json.encode(fields.json).decode()
        found.append(Grammar("json_schema", text, f"{prefix}json"))
    if fields.regex is not None:
        found.append(Grammar("regex", fields.regex, f"{prefix}regex"))
    if fields.choice is not None:
        if not fields.choice:
            raise InvalidRequestError(f"{prefix}choice must hold at least one text", param=f"{prefix}choice")
        found.append(Grammar("choice", msgspec.json.encode(fields.choice).decode(), f"{prefix}choice"))
    if fields.grammar is not None:
        found.append(Grammar("gbnf" if is_gbnf(fields.grammar) else "lark", fields.grammar, f"{prefix}grammar"))
    if fields.structural_tag is not None:
        found.append(_structural_tag(fields.structural_tag, f"{prefix}structural_tag"))
    if fields.json_object:
        found.append(Grammar("json_object", param=f"{prefix}json_object"))
    return found


def _structural_tag(tag: str | Mapping[str, Any], param: str) -> Grammar:
    return Grammar("structural_tag", tag if isinstance(tag, str) else msgspec.json.encode(tag).decode(), param)


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


def check_count(prompts: int, choices: int, param: str) -> None:
    """Raises:
    InvalidRequestError: there are more texts to work on than one request may bring.
    """
    if prompts * choices > MAX_PROMPTS:
        times = f" times {choices} choices" if choices > 1 else ""
        raise InvalidRequestError(f"{param} takes up to {MAX_PROMPTS} entries, got {prompts}{times}", param=param)


def keep_alive_s(value: float | str | None) -> float | None:
    """Seconds; a text may carry a unit as in `5m`. Negative: for good."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise InvalidRequestError("keep_alive must be seconds or a text such as '5m'", param="keep_alive")
        value = float(match["number"]) * _UNIT_S[match["unit"]]
    return float("inf") if value is not None and value < 0 else value
