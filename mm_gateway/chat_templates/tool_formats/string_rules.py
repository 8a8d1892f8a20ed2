"""What a JSON schema says of a string, as a regular expression of Lark: for formats that write strings as they are, not as JSON.

The formats are those of JSON Schema's section 7.3 (https://json-schema.org/draft/2020-12/json-schema-validation) that grammars of JSON
hold strings to as well; each as its RFC writes it: 3339 (times), 5321 (mailboxes), 1123 (host names), 2673, 4291, 3986 and 4122.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from mm_gateway.chat_templates.tool_formats.parameters import Parameter, length_of, referred

ANY_TEXT = "/(?s:.*)/"
_MAX_DEPTH = 12

_DATE = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_CLOCK = "T([0-9]{1,9}H([0-9]{1,9}M([0-9]{1,9}S)?)?|[0-9]{1,9}M([0-9]{1,9}S)?|[0-9]{1,9}S)"
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ATOM = r"[A-Za-z0-9!#$%&'*+\/=?^_`{|}~-]{1,64}"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_GROUP = "[0-9A-Fa-f]{1,4}"
_IPV6 = "|".join(
    [f"({_GROUP}:){{7}}{_GROUP}", f"({_GROUP}:){{1,7}}:", f":(:{_GROUP}){{1,7}}", "::"]
    + [f"({_GROUP}:){{1,{7 - after}}}(:{_GROUP}){{1,{after}}}" for after in range(1, 7)]
)
FORMATS: Mapping[str, str] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": "P([0-9]{1,9}W|([0-9]{1,9}Y([0-9]{1,9}M([0-9]{1,9}D)?)?|[0-9]{1,9}M([0-9]{1,9}D)?|[0-9]{1,9}D)"
    f"({_CLOCK})?|{_CLOCK})",
    "email": rf"{_ATOM}(\.{_ATOM}){{0,8}}@{_LABEL}(\.{_LABEL}){{1,8}}",
    "hostname": rf"{_LABEL}(\.{_LABEL}){{0,8}}",
    "ipv4": rf"{_OCTET}(\.{_OCTET}){{3}}",
    "ipv6": _IPV6,
    "uri": r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:\/?#\[\]@!$&'()*+,;=%-]+",
    "uuid": "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
}


class StringRule(NamedTuple):
    """parts: regular expressions of Lark that all of the text matches, each of them. left_out: keywords that they do not hold it to, as
    paths within the parameter's schema."""

    parts: tuple[str, ...] = (ANY_TEXT,)
    left_out: tuple[str, ...] = ()

    @property
    def regex(self) -> str:
        """All of them as one."""
        return " & ".join(self.parts)

    @property
    def may_be_empty(self) -> bool:
        """Whether an empty text fits; True where that cannot be told."""
        try:
            return all(re.fullmatch(part[1:-1].replace("\\/", "/"), "") for part in self.parts)
        except re.error:
            return True


def string_rule(parameter: Parameter) -> StringRule:
    """What a parameter has to be that is a string, or a string or null."""
    parts, left_out = _read(parameter.schema, parameter.root, "", 0)
    if "null" in parameter.types:
        parts = [f"/({part[1:-1]})|null/" for part in parts]
    return StringRule(tuple(dict.fromkeys(parts)) or (ANY_TEXT,), left_out)


def unheld(parameter: Parameter) -> tuple[str, ...]:
    """What a text of any kind is not held to, where a parameter may be a string and something else beside that, which is not null."""
    parts, left_out = _read(parameter.schema, parameter.root, "", 0)
    return left_out or (("type",) if parts else ())


def _read(schema: object, root: Mapping[str, Any], path: str, depth: int) -> tuple[list[str], tuple[str, ...]]:
    """Regular expressions, all of which it has to match, and what is left out."""
    if not isinstance(schema, Mapping):
        return [], ()
    of = cast(Mapping[str, Any], schema)
    if depth > _MAX_DEPTH:
        return [], (path.rstrip("."),)
    parts: list[str] = []
    left_out: list[str] = []
    least, most = length_of(of, "minLength"), length_of(of, "maxLength")
    left_out += [f"{path}{key}" for key, value in (("minLength", least), ("maxLength", most)) if of.get(key) and value is None]
    if least or most is not None:
        parts.append(f"/(?s:.{{{least or 0},{'' if most is None else most}}})/")
    pattern: object = of.get("pattern")
    if isinstance(pattern, str) and pattern:
        whole = _whole(pattern) if "\n" not in pattern else None
        if whole is None:
            left_out.append(f"{path}pattern")
        else:
            parts.append(f"/{whole}/")
    if (known := FORMATS.get(str(of.get("format")))) is not None:
        parts.append(f"/{known}/")
    reference: object = of.get("$ref")
    inner: list[tuple[str, object]] = [("$ref", referred(root, reference))] if isinstance(reference, str) else []
    inner += [(f"allOf[{place}]", entry) for place, entry in enumerate(of.get("allOf") or ())]
    for key, entry in inner:
        more, missing = _read(entry, root, f"{path}{key}.", depth + 1)
        parts += more
        left_out += missing
    for key in ("anyOf", "oneOf"):
        branches = [
            _read(entry, root, f"{path}{key}[{place}].", depth + 1)
            for place, entry in enumerate(of.get(key) or ())
            if "string" in Parameter("", entry, False, root).types  # the others say nothing of strings
        ]
        left_out += [missing for _, all_missing in branches for missing in all_missing]
        if len(branches) == 1:
            parts += branches[0][0]
        elif branches and all(len(more) == 1 for more, _ in branches):
            parts.append("/" + "|".join(f"({more[0][1:-1]})" for more, _ in branches) + "/")
        elif branches and all(more for more, _ in branches):
            left_out.append(f"{path}{key}")  # an alternative of several conditions is no single expression
    return parts, tuple(left_out)


def _whole(pattern: str) -> str | None:
    """A JSON schema's pattern, which may match anywhere in a text, as one that matches all of it; None: its anchors are within groups."""
    alternatives: list[str] = []
    start, depth, in_class, at = 0, 0, False, 0
    anchors: set[int] = set()
    ends: list[int] = []
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            at += 1
        elif in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
            at += pattern.startswith(("[^]", "[]"), at) + pattern.startswith("[^]", at)
        elif char in "()":
            depth += 1 if char == "(" else -1
        elif char in "^$":
            anchors.add(at)
        elif char == "|" and not depth:
            ends.append(at)
        at += 1
    for end in (*ends, len(pattern)):
        first, last = start in anchors, end - 1 in anchors and pattern[end - 1] == "$" and end > start
        first = first and pattern[start] == "^"
        inner = pattern[start + first : end - last if last else end]
        if any(start + first <= anchor < end - last for anchor in anchors):
            return None
        alternatives.append(f"{'' if first else '(?s:.*)'}(?:{inner}){'' if last else '(?s:.*)'}")
        start = end + 1
    return "|".join(alternatives).replace("\\/", "/").replace("/", "\\/")
