"""What the OpenAPI description says of the fields of requests: meaning, range, examples. Adding a field of a request adds a row here.

A row holds keywords of JSON schema, under the field's name, or `Struct.field` where a name means different things. Ranges
are checked elsewhere (`core.GenerationConfig`, `api/generation_requests.py`); the tests compare.
"""

from __future__ import annotations

from typing import Any


def _says(description: str, **keywords: Any) -> dict[str, Any]:
    return {"description": description, **keywords}


def _ours(description: str, **keywords: Any) -> dict[str, Any]:
    return {"description": f"Extension. {description}", **keywords}


def _accepted(description: str) -> dict[str, Any]:
    return {"description": f"{description} Accepted, without effect on the reply."}


def _refused(instead: str = "") -> dict[str, Any]:
    return {"description": f"Refused by name: not supported by this server. {instead}".strip()}


FIELDS: dict[str, dict[str, Any]] = {
    "model": _says("A name or an alias from `/v1/models`.", examples=["mock"]),
    "user": _accepted("Your name of the end user."),
    # what is continued
    "messages": _says("The conversation so far.", minItems=1),
    "ChatMessage.role": _says("`developer` is read as `system` where the model's template knows none; `function` is refused."),
    "ChatMessage.content": _says("A text, or text parts. Null only beside `tool_calls`."),
    "ChatMessage.name": _says("Of the author, where the model's template writes it."),
    "ChatMessage.tool_calls": _says("Of an assistant: what it called."),
    "ChatMessage.tool_call_id": _says("Of a tool: the call that this is the result of."),
    "ChatMessage.function_call": _refused("Use `tool_calls`."),
    "ChatMessage.audio": _refused(),
    "ContentPart.type": _says("Only `text` is served.", examples=["text"]),
    "prompt": _says("A text, texts, token ids, or lists of token ids; not mixed.", examples=["Once upon a time"]),
    "TokenizeRequest.prompt": _says("A text. Give either this or `messages`."),
    "TokenizeRequest.messages": _says("A conversation, encoded as `/v1/chat/completions` encodes it.", minItems=1),
    "suffix": _refused(),
    "echo": _says("Put the prompt before the text; with `logprobs` it is scored too."),
    # how it is continued
    "max_tokens": _says("Most tokens to generate. Default: 16 for completions, for chat what is left of the context.", minimum=0),
    "ChatCompletionRequest.max_tokens": _says("The older name of `max_completion_tokens`.", minimum=1),
    "max_completion_tokens": _says("Most tokens to generate. Default: what is left of the context.", minimum=1),
    "temperature": _says("0 is greedy. Default: the model's own, else 1.", minimum=0, maximum=2, examples=[0.7]),
    "top_p": _says(
        "Sample among the fewest tokens whose probabilities reach it. Default: the model's own, else 1.", exclusiveMinimum=0, maximum=1
    ),
    "top_k": _ours("Sample among the k most probable tokens; 0 or -1: all.", minimum=-1),
    "min_p": _ours("Drop tokens less probable than this times the most probable one.", minimum=0, maximum=1),
    "presence_penalty": _says("Subtracted once from the logit of each token generated so far.", minimum=-2, maximum=2),
    "frequency_penalty": _says("Subtracted from a token's logit once per time it was generated.", minimum=-2, maximum=2),
    "repetition_penalty": _ours(
        "Divides positive logits of tokens seen in prompt or output, multiplies negative ones.", exclusiveMinimum=0, maximum=10
    ),
    "logit_bias": _says("Token id -> -100 to 100, added to its logit.", examples=[{"50256": -100}]),
    "seed": _says("The same seed, prompt and parameters give the same text.", minimum=-(2**63), maximum=2**64 - 1),
    "stop": _says("Up to four texts that end the reply and are not part of it.", maxItems=4, minLength=1),
    "ignore_eos": _ours("Go on past the end-of-text token, to the limit."),
    "n": _says("Choices per prompt. Default: 1.", minimum=1, maximum=128),
    "best_of": _says("Sample this many per prompt, return the `n` of highest mean log-probability.", minimum=1, maximum=128),
    "logprobs": _says("Log-probabilities of the tokens, and of this many of the most probable ones.", minimum=0, maximum=20),
    "ChatCompletionRequest.logprobs": _says("Log-probabilities of the tokens."),
    "top_logprobs": _says("With `logprobs`: of this many of the most probable tokens too.", minimum=0, maximum=20),
    "stream": _says("Send the reply as server-sent events while it is generated."),
    "stream_options": _says("Only with `stream`."),
    "StreamOptions.include_usage": _says("End with a chunk of usage and no choices."),
    "StreamOptions.include_obfuscation": _accepted("Whether to pad chunks."),
    "keep_alive": _ours(
        "How long the model stays in memory after this request: seconds, or a text such as `10m`; 0: unload, -1: for good.",
        examples=["10m"],
    ),
    # what it has to look like
    "response_format": _says("Enforced token by token."),
    "ResponseFormat.json_schema": _says("With `type: json_schema`."),
    "JsonSchemaFormat.schema": _says("JSON schema; null: any object."),
    "JsonSchemaFormat.strict": _accepted("Every schema is enforced."),
    "guided_json": _ours("A JSON schema, as such or as text, that the output follows."),
    "guided_regex": _ours("A regular expression that the whole output matches.", examples=["[0-9]{3}"]),
    "guided_choice": _ours("The output is one of these texts.", minItems=1),
    "guided_grammar": _ours("A grammar in llguidance's dialect of Lark that the output follows."),
    # tools
    "tools": _says("Functions that the model may call.", maxItems=128),
    "FunctionTool.type": _says("Only `function` is served.", examples=["function"]),
    "FunctionDefinition.name": _says("1 to 64 letters, digits, underscores or dashes.", examples=["get_time"]),
    "FunctionDefinition.parameters": _says("JSON schema of an object."),
    "FunctionDefinition.strict": _accepted("Arguments always follow the schema."),
    "tool_choice": _says("`none`, `auto` (default), `required`, a function, or `allowed_tools`.", examples=["auto"]),
    "parallel_tool_calls": _says("Allow several calls in one reply. Default: true."),
    "functions": _refused("Use `tools`."),
    "function_call": _refused("Use `tool_choice`."),
    # accepted or refused as a whole
    "metadata": _accepted("Your own keys and values."),
    "store": _accepted("Whether to keep the reply."),
    "service_tier": _accepted("Priority."),
    "safety_identifier": _accepted("Your name of the end user."),
    "prompt_cache_key": _accepted("Prompts that begin alike share work anyway."),
    "prompt_cache_retention": _accepted("Prompts that begin alike share work anyway."),
    "modalities": _says("Only `text` is served.", examples=[["text"]]),
    "audio": _refused(),
    "prediction": _refused(),
    "reasoning_effort": _says("Only `none` is served.", examples=["none"]),
    "verbosity": _says("Only `medium` is served.", examples=["medium"]),
    "web_search_options": _refused(),
    # responses and workflows
    "workflow": _ours("Parameters of a workflow; only for models that are workflows."),
    "ResponseRequest.input": _says("A text, or items: messages, function calls and their outputs, references to stored items."),
    "ResponseRequest.store": _says("Keep the response, so that it can be continued. Default: true."),
    "instructions": _says("A system message in front, for this response only."),
    "previous_response_id": _says("The stored response that this one continues."),
    "max_output_tokens": _says("Most tokens to generate. Default: what is left of the context.", minimum=1),
    "include": _says("What else the reply is to hold."),
    "text": _says("What the output has to look like: `format`, enforced token by token."),
    "truncation": _says("`auto` leaves out the oldest turns of what does not fit the context; `disabled`, the default, refuses it."),
    "max_tool_calls": _accepted("Bounds calls of built-in tools, of which there are none."),
    **{
        f"ResponseRequest.{name}": _refused()
        for name in (
            *("access_programs", "background", "background_options", "context_management", "conversation", "image", "moderation"),
            *("prompt", "prompt_cache_options", "reasoning"),
        )
    },
    # embeddings and tokens
    "input": _says("A text, texts, token ids, or lists of token ids; not mixed, none empty.", minLength=1, minItems=1, maxItems=2048),
    "encoding_format": _says("`float` (default): numbers; `base64`: of little-endian float32."),
    "dimensions": _says("Numbers of each vector; other than the model's own only where it was trained for that.", minimum=1),
    "add_special_tokens": _says("With `prompt`: what the tokenizer puts in front. Default: true."),
    "return_token_strs": _says("Also spell the tokens as the vocabulary does."),
    "add_generation_prompt": _says("With `messages`: the beginning of the assistant's turn. Default: true."),
    "continue_final_message": _refused(),
    "tokens": _says("Token ids.", examples=[[15496, 995]]),
}

# What is said of whole requests, beyond the types of their fields.
REQUESTS: dict[str, dict[str, Any]] = {
    "CompletionRequest": {"required": ["model", "prompt"]},
    "TokenizeRequest": {"oneOf": [{"required": ["prompt"]}, {"required": ["messages"]}]},
}
