"""Reads YAML; a key given twice is an error, where YAML would take the last, and whatever else is wrong is a `yaml.YAMLError`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from mm_gateway.errors import ConfigurationError


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            # What a day such as 2027-02-30, a number without an end, or a text after !!int is to int(), date() and the others.
            raise yaml.constructor.ConstructorError(None, None, f"a value cannot be read: {error}", node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a text or a number", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def parsed(text: str) -> Any:
    """What a YAML file says.

    Raises:
        yaml.YAMLError: it is none, or holds a value that cannot be read.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # safe: _Loader is a SafeLoader
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None


def file_text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        ConfigurationError: it is no file. OSError, UnicodeDecodeError: it cannot be read.
    """
    # A pipe would be waited for until somebody writes to it, and be empty when it is read again; a device may never end.
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path} is no file; a folder, a pipe or a device is not read")
    return path.read_text(encoding="utf-8")


def read_mapping(path: Path) -> dict[str, Any]:
    """A file's content; {} where it is empty.

    Raises:
        ConfigurationError: it cannot be read, or is no mapping.
    """
    try:
        content = parsed(file_text(path))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    return mapping(content, f"{path}")


def mapping(content: object, where: str) -> dict[str, Any]:
    """A part of a file that has to be a mapping; {} where it is left empty.

    Raises:
        ConfigurationError: it is none.
    """
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"{where} must be a mapping, not {type(content).__name__}")
    return {str(key): value for key, value in cast(Mapping[object, Any], content).items()}
