"""Reads `models.yaml`, `gateway.yaml` and the environment into Settings; every mistake names file, entry, key and what is allowed."""

from __future__ import annotations

import difflib
import importlib.resources
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
import yaml

from mm_gateway.configuration.api_key import ApiKey, hashed
from mm_gateway.configuration.key_file import read_key_file
from mm_gateway.configuration.settings import (
    WORKFLOW_PREFIX,
    EngineSettings,
    LimitSettings,
    MemorySettings,
    ModelConfig,
    SearchSettings,
    ServerSettings,
    Settings,
    StorageSettings,
    WorkflowSettings,
)
from mm_gateway.errors import ConfigurationError

_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "server": ServerSettings,
    "limits": LimitSettings,
    "memory": MemorySettings,
    "engine": EngineSettings,
    "storage": StorageSettings,
    "search": SearchSettings,
    "workflows": WorkflowSettings,
}
_SHORT = {
    "MM_GATEWAY_HOST": "server.host",
    "MM_GATEWAY_PORT": "server.port",
    "MM_GATEWAY_API_KEYS": "server.api_keys",
    "MM_GATEWAY_ADMIN_KEYS": "server.admin_keys",
}
_FILES = ("MM_GATEWAY_MODELS", "MM_GATEWAY_CONFIG")
BUILT_IN_PREFIX = "builtin:"
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]i?B)")
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_ONLY = {"base_url": "remote", "api_key_env": "remote", "timeout_s": "remote", "delay_s": "mock"}

S = TypeVar("S", bound=msgspec.Struct)

# key -> (what is allowed, whether a value is)
_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "device": ("auto, cuda, cuda:N or cpu", lambda v: _DEVICE.fullmatch(v) is not None),
    "max_context_length": ("at least 1", lambda v: v is None or v >= 1),
    "ttl_s": ("at least 0, or null", lambda v: v is None or v >= 0),
    "kv_cache_bytes": ("at least 1, or null", lambda v: v is None or v >= 1),
    "max_running": ("at least 1, at most 1024", lambda v: v is None or 1 <= v <= 1024),
    "timeout_s": ("greater than 0", lambda v: v > 0),
    "delay_s": ("at least 0", lambda v: v >= 0),
    "port": ("0 to 65535", lambda v: 0 <= v <= 65535),
    "max_body_bytes": ("at least 1024", lambda v: v >= 1024),
    "early_commit_s": ("greater than 0", lambda v: v > 0),
    "heartbeat_s": ("greater than 0", lambda v: v > 0),
    "shutdown_grace_s": ("at least 0", lambda v: v >= 0),
    "max_cached_models": ("at least 1", lambda v: v >= 1),
    "memory_threshold": ("greater than 0, at most 1", lambda v: 0 < v <= 1),
    "max_step_tokens": ("at least 1", lambda v: v >= 1),
    "requests_per_minute": ("at least 1, or null", lambda v: v is None or v >= 1),
    "tokens_per_minute": ("at least 1, or null", lambda v: v is None or v >= 1),
    "max_requests": ("at least 1", lambda v: v >= 1),
    "max_queued_requests": ("at least 1", lambda v: v >= 1),
    "cors_origins": (
        "*, or origins such as https://example.org",
        lambda v: all(o == "*" or re.fullmatch(r"https?://[^/]+", o) for o in v),
    ),
    "max_responses": ("at least 1", lambda v: v >= 1),
    "response_ttl_s": ("greater than 0, or null", lambda v: v is None or v > 0),
    "response_max_bytes": ("at least 1024", lambda v: v >= 1024),
    "session_ttl_s": ("greater than 0, or null", lambda v: v is None or v > 0),
    "max_sessions": ("at least 1", lambda v: v >= 1),
    "max_session_turns": ("at least 1", lambda v: v >= 1),
    "max_session_tokens": ("at least 1", lambda v: v >= 1),
    "max_waiting": ("at least 1", lambda v: v >= 1),
    "max_results": ("1 to 20", lambda v: 1 <= v <= 20),
    "max_source_tokens": ("at least 100", lambda v: v >= 100),
    "searxng_url": ("an http:// or https:// address, or null", lambda v: v is None or urlsplit(v).scheme in ("http", "https")),
    "max_file_bytes": ("at least 1024", lambda v: v >= 1024),
    "max_page_bytes": ("at least 1024", lambda v: v >= 1024),
    "page_timeout_s": ("greater than 0", lambda v: v > 0),
    "max_redirects": ("at least 0", lambda v: v >= 0),
    "parallel_fetches": ("1 to 20", lambda v: 1 <= v <= 20),
}


def load_settings(models_file: Path | None, gateway_file: Path | None, environ: Mapping[str, str]) -> Settings:
    """All settings. Later sources win: the files' defaults, the files, the environment.

    Args:
        models_file, gateway_file: None: those that MM_GATEWAY_MODELS and MM_GATEWAY_CONFIG name, else `config/*.yaml`
            in the working folder, else those inside the package.
        environ: variables `MM_GATEWAY_<SECTION>_<KEY>` override `gateway.yaml`.

    Raises:
        ConfigurationError: something is wrong; the message is for the person who wrote it.
    """
    models_path = models_file or _default_file("models.yaml", environ.get("MM_GATEWAY_MODELS"))
    gateway_path = gateway_file or _default_file("gateway.yaml", environ.get("MM_GATEWAY_CONFIG"))
    models_yaml, gateway_yaml = _read(models_path), _read(gateway_path)
    _check_keys(models_yaml, ("models", "default_model"), f"{models_path}")
    _check_keys(gateway_yaml, tuple(_SECTIONS), f"{gateway_path}")
    entries = models_yaml.get("models") or {}
    if not isinstance(entries, dict) or not entries:
        raise ConfigurationError(f"{models_path}: models must be a mapping of at least one name to its entry")
    models = {str(name): _model(entry, str(name), models_path) for name, entry in entries.items()}
    _check_aliases(models, models_path)
    default_model = models_yaml.get("default_model")
    if default_model is not None and default_model not in models:
        raise ConfigurationError(f"{models_path}: default_model: {default_model!r} is not among the models: {', '.join(models)}")
    overrides = _environment(environ)
    sections = {
        name: _convert(
            {**_mapping(gateway_yaml.get(name), f"{gateway_path}: {name}"), **overrides.get(name, {})}, kind, f"{gateway_path}: {name}"
        )
        for name, kind in _SECTIONS.items()
    }
    sections["server"], keys = _access(sections["server"], gateway_path, models)
    settings = Settings(models=models, default_model=default_model, keys=keys, **sections)  # type: ignore[arg-type]
    model = settings.workflows.model
    if model is not None and not any(model == name or model in config.aliases for name, config in models.items()):
        raise ConfigurationError(f"{gateway_path}: workflows: model: {model!r} is not among the models: {', '.join(models)}")
    return settings


def _access(server: Any, path: Path, models: Mapping[str, ModelConfig]) -> tuple[ServerSettings, tuple[ApiKey, ...]]:
    """The section with hashes in the place of keys, so that no key stays in memory, and the keys of its file."""
    changes: dict[str, Any] = {}
    for name in ("api_keys", "admin_keys"):
        try:
            changes[name] = tuple(hashed(key) for key in getattr(server, name))
        except ValueError as error:
            raise ConfigurationError(f"{path}: server: {name}: {error}") from None
    keys: tuple[ApiKey, ...] = ()
    if server.api_keys_file is not None:
        names = {known: name for name, config in models.items() for known in (name, *config.aliases)}
        keys = read_key_file(path.parent / Path(server.api_keys_file).expanduser(), names)
    return msgspec.structs.replace(server, **changes), keys


def _default_file(name: str, named: str | None) -> Path:
    if named:
        return Path(named)
    local = Path("config") / name
    if local.is_file():
        return local
    installed = Path(str(importlib.resources.files("mm_gateway"))) / "config" / name
    # In a checkout the package has no folder of its own for them: they stand beside it.
    return installed if installed.is_file() else Path(__file__).parents[2] / "config" / name


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice instead of taking the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, Any]:
    try:
        # safe: _Loader is a SafeLoader
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    return _mapping(content, f"{path}")


def _mapping(content: object, where: str) -> dict[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"{where} must be a mapping, not {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def _model(entry: object, name: str, path: Path) -> ModelConfig:
    where = f"{path}: model {name}"
    given = _mapping(entry, where)
    config = _convert(given, ModelConfig, where)
    for key, backend in _ONLY.items():
        if key in given and config.backend != backend:
            raise ConfigurationError(f"{where}: {key}: is only allowed with backend: {backend}, this one is {config.backend}")
    if config.backend == "remote" and urlsplit(config.base_url or "").scheme not in ("http", "https"):
        raise ConfigurationError(f"{where}: base_url: must be an http:// or https:// address, got {config.base_url!r}")
    folder = path.parent
    changes: dict[str, Any] = {}
    if config.path is not None and config.path.startswith(BUILT_IN_PREFIX):
        changes["path"] = str(_built_in_model(config.path, where))
    elif config.path is not None:
        changes["path"] = str((folder / Path(config.path).expanduser()).resolve())
    if config.chat_template is not None and config.chat_template not in ("qwen-chat", "chatml", "gpt2", "llama"):
        template = (folder / Path(config.chat_template).expanduser()).resolve()
        if not template.is_file():
            raise ConfigurationError(
                f"{where}: chat_template: {config.chat_template!r} is neither qwen-chat, chatml, gpt2 or llama nor a file here"
            )
        changes["chat_template"] = str(template)
    return msgspec.structs.replace(config, **changes) if changes else config


def _built_in_model(path: str, where: str) -> Path:
    """The folder of a model that comes with the package."""
    models = Path(__file__).parents[1] / "builtin_models"
    names = sorted(folder.name.replace("_", "-") for folder in models.iterdir() if (folder / "config.json").is_file())
    name = path.removeprefix(BUILT_IN_PREFIX)
    if name not in names:
        raise ConfigurationError(
            f"{where}: path: {path!r} is no model of the package; there are {', '.join(BUILT_IN_PREFIX + n for n in names)}"
        )
    return models / name.replace("-", "_")


def _convert(given: dict[str, Any], kind: type[S], where: str) -> S:
    hints = get_type_hints(kind)
    _check_keys(given, tuple(hints), where)
    values = dict(given)
    for key, value in values.items():
        if key.endswith("_bytes") and isinstance(value, str) and (size := _SIZE.fullmatch(value.strip())):
            values[key] = int(float(size["number"]) * _UNITS[size["unit"]])
    for key, value in values.items():
        try:
            values[key] = msgspec.convert(value, hints[key])
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"{where}: {key}: got {value!r}, allowed is {_allowed(hints[key])} ({error})") from None
        if key in _RANGES and not _RANGES[key][1](values[key]):
            raise ConfigurationError(f"{where}: {key}: got {value!r}, allowed is {_RANGES[key][0]}")
    if kind is ModelConfig and "model_name" not in values:
        raise ConfigurationError(f"{where}: model_name is missing: a hub id or a folder")
    return kind(**values)


def _check_keys(given: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigurationError(f"{where}: unknown key {key!r}; {hint}Allowed are {', '.join(allowed)}")


def _check_aliases(models: Mapping[str, ModelConfig], path: Path) -> None:
    for name in (name for model, config in models.items() for name in (model, *config.aliases)):
        if name.startswith(WORKFLOW_PREFIX):
            raise ConfigurationError(f"{path}: model {name}: names that begin with {WORKFLOW_PREFIX} are those of workflows")
    owner = {name: name for name in models}
    for name, config in models.items():
        for alias in config.aliases:
            if alias in owner:
                raise ConfigurationError(f"{path}: model {name}: aliases: {alias!r} already names {owner[alias]}")
            owner[alias] = name


def _environment(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    names = {
        f"MM_GATEWAY_{section}_{key}".upper(): f"{section}.{key}" for section, kind in _SECTIONS.items() for key in get_type_hints(kind)
    }
    names |= _SHORT
    found: dict[str, dict[str, Any]] = {}
    for variable, text in environ.items():
        if not variable.startswith("MM_GATEWAY_") or variable in _FILES:
            continue
        if variable not in names:
            near = difflib.get_close_matches(variable, [*names, *_FILES], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigurationError(f"environment: unknown variable {variable}{hint}")
        section, key = names[variable].split(".")
        found.setdefault(section, {})[key] = _parse(text, get_type_hints(_SECTIONS[section])[key], variable, key)
    return found


def _parse(text: str, hint: Any, variable: str, key: str) -> Any:
    """A variable's text in the key's type; lists are separated by commas."""
    if get_origin(hint) is tuple:
        return tuple(item.strip() for item in text.split(",") if item.strip())
    if key.endswith("_bytes") and _SIZE.fullmatch(text.strip()):
        return text
    try:
        return msgspec.convert(text, hint, strict=False)
    except msgspec.ValidationError:
        raise ConfigurationError(f"environment: {variable}: got {text!r}, allowed is {_allowed(hint)}") from None


def _allowed(hint: Any) -> str:
    """A type in the words of YAML."""
    if hint is type(None):
        return "null"
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    if hint in names:
        return names[hint]
    if get_origin(hint) is tuple:
        return "a list of texts"
    arguments: list[Any] = list(get_args(hint))
    if arguments and all(isinstance(argument, str) for argument in arguments):
        return " or ".join(filter(None, [", ".join(arguments[:-1]), arguments[-1]]))
    return " or ".join(_allowed(argument) for argument in arguments) if arguments else str(hint)
