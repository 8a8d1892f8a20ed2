"""From JSON to the structs of the wire, with errors that name the field as OpenAI's do, in time that the size of the JSON bounds."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec

from mm_gateway.core.limits import MAX_JSON_DEPTH, MAX_JSON_OBJECTS, MAX_JSON_VALUES
from mm_gateway.core.ranges import violation
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol.unknown_fields import without_unknown

Decoded = TypeVar("Decoded", bound=msgspec.Struct)

# How msgspec words what it finds; the tests of this module hold them to its version.
_PLACE = re.compile(r"^(?P<what>.*?) - at `(?P<key>key` in `)?\$(?P<path>.*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$", re.DOTALL)
_MAX_SHOWN = 200
_MAX_KEY_SHOWN = 50
_NUMBER = re.compile(r"[0-9]{1,18}")
_MAX_LISTED = 24
"""Fields of a struct up to which an unknown one is answered with the list of them."""

_ALL_LISTS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NO_BACKSLASH = re.compile(rb"[^\\]")
_PIECE_BYTES = 2**20
_ALL_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_WHOLE_NUMBERS = range(-(2**63), 2**64)
"""Those that msgspec writes; it reads others too where a field takes any value, as schemas do."""


def decode(decoder: msgspec.json.Decoder[Decoded], body: bytes, unknown: list[str] | None = None) -> Decoded:
    """Decode a body. unknown: gets the paths of unknown fields, which are left out; None: they are refused.

    Raises:
        InvalidRequestError: no JSON, too much of it, or a field that is unknown, missing, of the wrong type or out of its range;
            `param` names it.
    """
    measure(body)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        if unknown is not None and (left_out := _left_out(msgspec.json.decode(body), decoder.type, "", unknown)) is not None:
            return decode(decoder, msgspec.json.encode(left_out))
        raise _explained(str(error), decoder.type, "", functools.partial(msgspec.json.decode, body)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"We could not parse the JSON body of your request: {str(error)[:_MAX_SHOWN]}") from None


def convert(value: Any, kind: type[Decoded], at: str, unknown: list[str] | None = None) -> Decoded:
    """A struct of what JSON was decoded to; errors and `unknown` as for `decode`. at: path of the value in the body."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        if unknown is not None and (left_out := _left_out(value, kind, at, unknown)) is not None:
            return convert(left_out, kind, at)
        raise _explained(str(error), kind, at, lambda: value) from None


_type_info = functools.cache(msgspec.inspect.type_info)


def _left_out(value: Any, kind: type, at: str, unknown: list[str]) -> Any:
    """The value without unknown fields, whose paths are added; None: it has none."""
    known, paths = without_unknown(value, _type_info(kind), at)
    unknown += paths
    return known if paths else None


def _explained(message: str, kind: type, at: str, value: Callable[[], Any]) -> InvalidRequestError:
    """msgspec's message as OpenAI words it. value: what was decoded, as plain JSON values."""
    place = _PLACE.match(message)
    what, path, of_key = (place["what"], place["path"], place["key"]) if place else (message, "", None)
    path = (at + path).lstrip(".")
    if unknown := _UNKNOWN.match(what):
        name = (f"{path}.{unknown['name']}" if path else unknown["name"])[:_MAX_SHOWN]
        known: tuple[str, ...] = getattr(kind, "__struct_fields__", ()) if path == at else ()
        listed = f"; there are {', '.join(known)}" if 0 < len(known) <= _MAX_LISTED else ""
        return InvalidRequestError(f"Unrecognized request argument supplied: {name}{listed}", param=name)
    if missing := _MISSING.match(what):
        name = f"{path}.{missing['name']}" if path else missing["name"]
        return InvalidRequestError(f"You must provide the parameter: {name}", param=name)
    # msgspec tells the bound that was broken, not the value: it is looked for among the values.
    if what.startswith("Expected ") and ", got" not in what:
        found = violation(at, value(), _type_info(kind))
        if found is not None:
            return found
    param = path.replace("[...]", "") or None
    if of_key:
        return InvalidRequestError(f"Invalid key {_wrong_key(value(), path)}in '{param}': {what[:300]}", param=param)
    return InvalidRequestError(f"Invalid value for '{param}': {what[:300]}" if param else what[:300], param=param)


def _wrong_key(value: Any, path: str) -> str:
    """Of an object whose keys are whole numbers the first that is none, with a blank behind it; "": none was found."""
    for name in path.split("."):
        value = _entries(value).get(name)
    return next((f"'{key[:_MAX_KEY_SHOWN]}' " for key in _entries(value) if _NUMBER.fullmatch(key) is None), "")


def _entries(value: Any) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def measure(body: bytes) -> None:
    """Count what a body holds before it is decoded, which keeps the interpreter's lock for as long as it takes.

    Raises:
        InvalidRequestError: it has too many values, or they are too deep inside each other, or a whole number of more than 64 bits;
            `param` names the field that has them.
    """
    if _excess(body) is None:
        _check_numbers(body)
        return
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        fields = {}
    name = max(fields, key=lambda name: len(fields[name]), default="The body")
    for param in (name, *fields):
        if param in fields and (excess := _excess(bytes(fields[param]))) is not None:
            raise InvalidRequestError(f"{param[:_MAX_SHOWN]} {excess}", param=param[:_MAX_SHOWN])
    raise InvalidRequestError(f"The body {_excess(body)}")


def _check_numbers(body: bytes) -> None:
    if b"0" * 19 not in body.translate(_ALL_DIGITS):
        return
    try:
        waiting: list[tuple[str, Any]] = [("", msgspec.json.decode(body))]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return  # said by whoever decodes it
    while waiting:
        at, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{at}.{name[:_MAX_SHOWN]}", entry) for name, entry in _entries(value).items()]
        elif isinstance(value, list):
            waiting += [(f"{at}[{index}]", entry) for index, entry in enumerate(cast(list[Any], value))]
        elif isinstance(value, int) and value not in _WHOLE_NUMBERS:
            param = at.lstrip(".")[:_MAX_SHOWN]
            raise InvalidRequestError(f"Invalid value for '{param}': whole numbers take up to 64 bits", param=param)


def check_depth(param: str, json: str) -> None:
    """Raises:
    InvalidRequestError: a text that is to be read as JSON has values too deep inside each other.
    """
    if (excess := _excess(json.encode("utf-8", "surrogatepass"))) is not None:
        raise InvalidRequestError(f"{param} {excess}", param=param)


def _excess(json: bytes) -> str | None:
    """What is too much in a JSON text; None: nothing. Searches over the whole of it take linear time and recurse nowhere."""
    brackets = json.count(b"[") + json.count(b"{")
    # Texts hold such signs as well. Only where there are many of them is it worth the time to look at those outside of texts.
    if brackets <= MAX_JSON_DEPTH and json.count(b'"') <= MAX_JSON_OBJECTS and json.count(b",") <= MAX_JSON_VALUES - MAX_JSON_DEPTH:
        return None
    unescaped = _without_escapes(json)
    texts = unescaped.count(b'"') // 2
    if texts > MAX_JSON_OBJECTS:
        return f"holds {texts} texts, a request takes up to {MAX_JSON_OBJECTS} texts, lists and objects"
    structure = b"".join(unescaped.split(b'"')[::2])
    brackets = structure.count(b"[") + structure.count(b"{")
    if texts + brackets > MAX_JSON_OBJECTS:
        return f"holds {texts + brackets} texts, lists and objects, a request takes up to {MAX_JSON_OBJECTS}"
    values = structure.count(b",") + brackets
    if values > MAX_JSON_VALUES:
        return f"holds {values} values, a request takes up to {MAX_JSON_VALUES}"
    nested = structure.translate(_ALL_LISTS, _NO_BRACKETS)
    for _ in range(MAX_JSON_DEPTH):
        # Takes away the innermost level everywhere.
        nested = nested.replace(b"[]", b"")
    return f"is more than {MAX_JSON_DEPTH} levels deep" if b"[]" in nested else None


def _without_escapes(json: bytes) -> bytes:
    """Without escaped quotes and backslashes, so that every quote begins or ends a text."""
    if b"\\" not in json:
        return json
    pieces: list[bytes] = []
    begin = 0
    # In pieces, since other threads wait for each of these calls.
    while begin < len(json):
        end = _NO_BACKSLASH.search(json, begin + _PIECE_BYTES)  # never between a backslash and what it escapes
        piece = json[begin : end.end() if end else len(json)]
        pieces.append(piece.replace(rb"\\", b"").replace(rb"\"", b""))
        begin += len(piece)
    return b"".join(pieces)
