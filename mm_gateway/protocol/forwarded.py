"""What must be understood of a body that another server gets: how its reply is to be sent on. The rest is that server's business."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from mm_gateway.core.limits import Choices
from mm_gateway.errors import InvalidRequestError

ForwardedFields = Mapping[str, msgspec.Raw]
"""Name -> the JSON of its value, as it came."""


class ForwardedStreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    continuous_usage_stats: Any = None


class _Generating(msgspec.Struct, kw_only=True):
    stream: bool | None = None
    stream_options: ForwardedStreamOptions | None = None
    n: Choices | None = None
    max_tokens: Any = None


class ForwardedChat(_Generating, kw_only=True):
    logprobs: Any = None
    max_completion_tokens: Any = None


class ForwardedCompletion(_Generating, kw_only=True):
    prompt: msgspec.Raw = msgspec.Raw()
    best_of: Choices | None = None
    logprobs: bool | int | None = None


class ForwardedEmbeddings(msgspec.Struct, kw_only=True):
    input: msgspec.Raw = msgspec.Raw()
    encoding_format: Literal["float", "base64"] | None = None


def forwarded_fields(body: bytes) -> ForwardedFields:
    """The fields of a body that is known to be a JSON object, their values untouched.

    Raises:
        InvalidRequestError: it is no UTF-8, which nobody has looked at in what is passed over.
    """
    try:
        if not body.isascii():
            _ = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"We could not parse the JSON body of your request: {error}") from None
    return _fields.decode(body)


def entries(given: msgspec.Raw) -> int:
    """How many prompts or inputs a field holds that takes a text, texts, token ids, or lists of them."""
    if not bytes(given).startswith(b"["):
        return 1
    found = _entries.decode(given)
    return 1 if not found or _NUMBER.match(bytes(found[0])) else len(found)


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_entries = msgspec.json.Decoder(list[msgspec.Raw])
_NUMBER = re.compile(rb"[-0-9]")
