"""Reads `server.api_keys_file`: lines of `KEY [NAME]`, or a YAML list of entries with limits and budgets; only hashes leave this module."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import yaml

from mm_gateway.configuration.api_key import NAME_FAULT, ApiKey, parse_key, read_expiry
from mm_gateway.configuration.hub_names import is_allowed
from mm_gateway.configuration.settings import WORKFLOW_PREFIX
from mm_gateway.configuration.yaml_file import parsed
from mm_gateway.errors import ConfigurationError
from mm_gateway.text import is_name

_COMMENT = re.compile(r"(^|\s)#.*")


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    name: str = ""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    cost_per_day: float | None = None
    cost_per_month: float | None = None
    models: list[str] = []
    expires: Any = None
    disabled: bool = False


_COUNTS = ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "tokens_per_month")
_COSTS = ("cost_per_day", "cost_per_month")


def read_key_file(path: Path, models: Mapping[str, str], allow: Sequence[str] = ()) -> tuple[ApiKey, ...]:
    """The keys of a file.

    Args:
        models: name or alias that an entry may list -> the model's name. Workflows may be listed besides.
        allow: patterns of hub models that may be listed too.

    Raises:
        ConfigurationError: it cannot be read, or an entry is wrong; the message names file and entry, and holds no key.
    """
    try:
        # A pipe would be waited for until somebody writes to it, and be empty when it is read again.
        if path.exists() and not path.is_file():
            raise ConfigurationError(f"api_keys_file: {path} is no file; a folder, a pipe or a device cannot hold keys")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"api_keys_file: {path} cannot be read: {getattr(error, 'strerror', None) or 'no UTF-8'}") from None
    lines = [_COMMENT.sub("", line).strip() for line in text.splitlines()]
    first = next(filter(None, lines), "")
    entries = _of_yaml(text, path) if first[:1] in ("-", "[") else [_of_line(line) for line in lines if line]
    if not entries:
        raise ConfigurationError(f"{path}: there is no key in it. Make one with: mm-gateway keys new")
    keys: list[ApiKey] = []
    for number, entry in enumerate(entries, 1):
        where = f"{path}: entry {number}"
        key = _key(entry, models, allow, where)
        if any(key.digest == other.digest for other in keys):
            raise ConfigurationError(f"{where}: the key is in the file twice")
        if key.name and any(key.name == other.name for other in keys):
            raise ConfigurationError(f"{where}: name: {key.name!r} already names another key")
        keys.append(key)
    return tuple(keys)


def _of_line(line: str) -> dict[str, Any]:
    key, _, name = line.partition(" ")
    return {"key": key, "name": name.strip()}


def _of_yaml(text: str, path: Path) -> list[Any]:
    try:
        content = parsed(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # YAML's own message quotes the line, which holds a key.
        raise ConfigurationError(f"{path} is no valid YAML{f', see line {mark.line + 1}' if mark else ''}") from None
    if not isinstance(content, list):
        raise ConfigurationError(f"{path} must be a list of keys, or lines of KEY NAME")
    return [{"key": entry} if isinstance(entry, str) else entry for entry in cast(list[Any], content)]


def _key(entry: Any, models: Mapping[str, str], allow: Sequence[str], where: str) -> ApiKey:
    try:
        found = msgspec.convert(entry, _Entry)
        digest = parse_key(found.key)
        # YAML reads times itself, where they are written as it likes them.
        expires_at = None if found.expires is None else read_expiry(str(found.expires), time.time())
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigurationError(
            f"{where}: {error}. Allowed are {', '.join(_Entry.__struct_fields__)}; key is a key or sha256:HEX"
        ) from None
    for name in (*_COUNTS, *_COSTS):
        limit = getattr(found, name)
        if limit is not None and not (limit >= 1 if name in _COUNTS else 0 < limit < math.inf):
            allowed = "at least 1" if name in _COUNTS else "greater than 0"
            raise ConfigurationError(f"{where}: {name}: got {limit}, allowed is {allowed}, or null")
    if found.name and not is_name(found.name):
        raise ConfigurationError(f"{where}: name: {found.name!r}: {NAME_FAULT}")
    entries = known_models(found.models, models, allow, where)
    limits = {name: getattr(found, name) for name in (*_COUNTS, *_COSTS)}
    return ApiKey(digest=digest, name=found.name, models=entries, expires_at=expires_at, disabled=found.disabled, **limits)


def known_models(listed: Sequence[str], models: Mapping[str, str], allow: Sequence[str], where: str) -> tuple[str, ...]:
    """The entries that a key may use, from names, aliases, workflows and allowed models of the hub. Arguments as for `read_key_file`.

    Raises:
        ConfigurationError: there is no such model.
    """
    others = (name for name in listed if name not in models and not name.startswith(WORKFLOW_PREFIX))
    unknown = next((name for name in others if not is_allowed(name, allow)), None)
    if unknown is not None:
        raise ConfigurationError(f"{where}: models: {unknown!r} is not among the models: {', '.join(models)}")
    return tuple(models.get(name, name) for name in listed)
