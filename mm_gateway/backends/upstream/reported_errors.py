"""What an upstream server says went wrong, in any of the shapes that servers say it in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from mm_gateway.backends.upstream.protocol import WireError


def error_in_text(body: bytes, status: int) -> WireError:
    """The error of a refusal's body: of its JSON, else the text itself under its HTTP status."""
    text = body.decode(errors="replace").strip()
    try:
        found = error_in(msgspec.json.decode(body))
    except msgspec.MsgspecError:
        found = None
    return found or WireError(f"HTTP {status}: {text}" if text else f"HTTP {status}")


def error_in(body: object) -> WireError | None:
    """The error of decoded JSON; None where there is none.

    `{"error": {…}}` is OpenAI's, `{"error": "…"}` TGI's and Ollama's, `{"object": "error", …}` vLLM's and Mistral's,
    `[{"error": {…}}]` Google's, `{"detail": …}` FastAPI's.
    """
    match body:
        case str(text) if text:
            return WireError(text)
        case [first, *_]:
            return error_in(first)
        case {"error": str(text)} if text:
            return WireError(text, type=_text(cast(Mapping[str, Any], body).get("error_type")))
        case {"error": dict(error)} | {"errors": [dict(error), *_]}:
            return _fields(cast(Mapping[str, Any], error))
        case {"detail": str(text)}:
            return WireError(text)
        case {"detail": [{"msg": str(text), "loc": [*place]}, *_]}:
            path = ".".join(str(step) for step in cast(list[object], place) if step != "body")
            return WireError(f"{path}: {text}", param=path)
        case {"detail": dict(error)}:
            return error_in(cast(object, error))
        case {"message": str()} | {"object": "error"} | {"type": "error"}:
            return _fields(cast(Mapping[str, Any], body))
        case _:
            return None


def _fields(error: Mapping[str, Any]) -> WireError:
    code = error.get("code")
    message = error.get("message")
    return WireError(
        message if isinstance(message, str) and message else msgspec.json.encode(message or error).decode(),
        type=_text(error.get("type")),
        param=_text(error.get("param")),
        code=code if isinstance(code, str | int) else _text(error.get("status")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
