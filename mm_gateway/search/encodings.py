"""From bytes to text, whatever their encoding was and whatever was claimed of it."""

from __future__ import annotations

import codecs
import re

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_META = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*(?P<name>[A-Za-z0-9_:.\-]{2,40})""", re.IGNORECASE)
_META_WITHIN = 4096
# As browsers read them: the larger encoding under the smaller one's name.
_WIDER = {"iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030"}


def decode(content: bytes, declared: str | None = None, *, html: bool = False) -> str:
    """The text. Tried in turn: a byte order mark, `declared`, UTF-8, what HTML says of itself, what it looks like; then UTF-8 with marks
    for what is none.

    Args:
        declared: what the server says. Like what the page says, it counts only if the content can be read by it.
    """
    for mark, name in _BOMS:
        if content.startswith(mark):
            return content.decode(name, errors="replace")
    claimed = [declared, "utf-8"]
    if html and (meta := _META.search(content[:_META_WITHIN])):
        claimed.append(meta["name"].decode())
    for name in filter(None, claimed):
        if (text := _try(content, name)) is not None:
            return text
    # Looks at the content only where nobody knows better, because it is slow.
    from charset_normalizer import from_bytes

    guess = from_bytes(content[:65536]).best()
    text = _try(content, guess.encoding) if guess is not None else None
    return text if text is not None else content.decode("utf-8", errors="replace")


def _try(content: bytes, name: str) -> str | None:
    try:
        known = codecs.lookup(name).name
        # Some codecs are no text encodings (base64), and cp1252 reads almost all, so UTF-8 goes before it.
        if known in ("iso8859-1", "ascii", "cp1252"):
            try:
                return content.decode("utf-8")
            except UnicodeDecodeError:
                pass
        return content.decode(_WIDER.get(known, known))
    except (LookupError, ValueError):
        return None
