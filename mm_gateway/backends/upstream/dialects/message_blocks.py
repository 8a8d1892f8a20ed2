"""Parts of a message that are no text, as blocks of Anthropic's Messages API."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from mm_gateway.backends.upstream.dialects.dialect import unsayable_part

_API = "messages"
_DATA_URL = re.compile(r"data:(?P<type>[^;,]*)(?:;[^;,]*)*?;base64,(?P<data>.*)", re.DOTALL)


def block_of(part: Mapping[str, Any]) -> dict[str, Any]:
    """The block that says the same as a part of chat's.

    Raises:
        UnsupportedParameterError: there is none.
    """
    match part:
        case {"type": "text", "text": text}:
            return {"type": "text", "text": text}
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return {"type": "image", "source": _source(part, url, "image/png")}
        case {"type": "file", "file": {"file_data": str(data), **more}}:
            return _document(_file(part, data), more.get("filename"))
        case {"type": "file", "file": {"file_url": str(url), **more}}:
            return _document({"type": "url", "url": url}, more.get("filename"))
        case {"type": "file"}:
            raise unsayable_part(_API, part, "files of another server's: send file_data")
        case _:
            raise unsayable_part(_API, part)


def _document(source: dict[str, Any], title: str | None) -> dict[str, Any]:
    return {"type": "document", "source": source} | ({"title": title} if title else {})


def _source(part: Mapping[str, Any], url: str, usual: str) -> dict[str, Any]:
    found = _DATA_URL.fullmatch(url)
    if found is not None:
        return {"type": "base64", "media_type": found["type"] or usual, "data": found["data"]}
    if url.startswith("data:"):
        raise unsayable_part(_API, part, "data URLs but those in base64")
    return {"type": "url", "url": url}


def _file(part: Mapping[str, Any], data: str) -> dict[str, Any]:
    """PDF as it is, texts as texts: this API has no other documents."""
    source = _source(part, data if data.startswith("data:") else f"data:application/pdf;base64,{data}", "application/pdf")
    if source["media_type"] == "application/pdf":
        return source
    if not source["media_type"].startswith("text/"):
        raise unsayable_part(_API, part, "files but PDF and text")
    try:
        text = base64.b64decode(source["data"], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise unsayable_part(_API, part, "texts but in UTF-8") from None
    return {"type": "text", "media_type": "text/plain", "data": text}
