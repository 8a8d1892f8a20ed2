"""The sections of `gateway.yaml`, and a mapping made into one of them or into a model's entry, checked key by key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_type_hints

import msgspec

from mm_gateway.configuration.settings import Settings
from mm_gateway.configuration.words import description, range_in_words, type_in_words
from mm_gateway.errors import ConfigurationError

SECTIONS: Mapping[str, type[msgspec.Struct]] = {
    field.name: type(field.default) for field in msgspec.structs.fields(Settings) if isinstance(field.default, msgspec.Struct)
}
"""Name of a section -> its type."""
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]i?B)")
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

S = TypeVar("S", bound=msgspec.Struct)


def converted(given: Mapping[str, Any], kind: type[S], where: str) -> S:
    """The struct of a mapping out of YAML. where: file and entry, for errors.

    Raises:
        ConfigurationError: a key is unknown or missing, or its value of the wrong type or out of range.
    """
    plain, hints = get_type_hints(kind), get_type_hints(kind, include_extras=True)
    check_keys(given, tuple(hints), where)
    values: dict[str, Any] = {}
    for key, value in given.items():
        sized = _size(value) if key.endswith("_bytes") else None
        value = value if sized is None else sized
        try:
            values[key] = msgspec.convert(value, hints[key])
        except msgspec.ValidationError as error:
            allowed = range_in_words(hints[key]) if _fits(value, plain[key]) else f"{type_in_words(plain[key])} ({error})"
            raise ConfigurationError(f"{where}: {key}: got {value!r}, allowed is {allowed}") from None
    missing = [field.name for field in msgspec.structs.fields(kind) if field.required and field.name not in values]
    if missing:
        raise ConfigurationError(f"{where}: {missing[0]} is missing: {description(hints[missing[0]])}")
    return kind(**values)


def of_text(text: str, kind: type[msgspec.Struct], key: str, variable: str) -> Any:
    """An environment variable's text in the type of a key; lists are separated by commas, and so are mappings: `a=b, c=d`. Its range is
    checked by `converted`.

    Raises:
        ConfigurationError: it is of another type.
    """
    hint = get_type_hints(kind)[key]
    if type_in_words(hint) == "a list of texts":
        return tuple(item.strip() for item in text.split(",") if item.strip())
    if type_in_words(hint) == "a mapping of texts to texts":
        pairs = [item.partition("=") for item in text.split(",") if item.strip()]
        return {name.strip(): value.strip() for name, _, value in pairs}
    if key.endswith("_bytes") and _size(text) is not None:
        return text
    try:
        return msgspec.convert(text, hint, strict=False)
    except msgspec.ValidationError:
        raise ConfigurationError(f"environment: {variable}: got {text!r}, allowed is {type_in_words(hint)}") from None


def check_keys(given: Iterable[str], allowed: tuple[str, ...], where: str) -> None:
    """Raises:
    ConfigurationError: one of the given is not allowed.
    """
    for key in given:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigurationError(f"{where}: unknown key {key!r}; {hint}Allowed are {', '.join(allowed)}")


def _size(value: object) -> int | None:
    """Bytes of a text such as `1.5GiB`."""
    size = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(float(size["number"]) * _UNITS[size["unit"]]) if size else None


def _fits(value: object, hint: Any) -> bool:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return False
    return True
