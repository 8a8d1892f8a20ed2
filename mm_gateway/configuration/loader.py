"""Reads `models.yaml`, `gateway.yaml` and the environment into Settings; every mistake names file, entry, key and what is allowed."""

from __future__ import annotations

import difflib
import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from mm_gateway.configuration.api_key import ApiKey, hashed
from mm_gateway.configuration.hub_names import HubPattern
from mm_gateway.configuration.key_file import read_key_file
from mm_gateway.configuration.model_config import model_names
from mm_gateway.configuration.model_entries import read_entries
from mm_gateway.configuration.sections import SECTIONS, check_keys, converted, of_text
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import WORKFLOW_PREFIX, EngineSettings, Settings, SettingsFiles, StorageSettings
from mm_gateway.configuration.words import range_in_words
from mm_gateway.configuration.yaml_file import mapping, read_mapping
from mm_gateway.errors import ConfigurationError

_SHORT = {
    "MM_GATEWAY_HOST": "server.host",
    "MM_GATEWAY_PORT": "server.port",
    "MM_GATEWAY_API_KEYS": "server.api_keys",
    "MM_GATEWAY_ADMIN_KEYS": "server.admin_keys",
    "MM_GATEWAY_METRICS_KEY": "server.metrics_key",
}
_FILES = ("MM_GATEWAY_MODELS", "MM_GATEWAY_CONFIG")
_OF_CLIENTS = ("MM_GATEWAY_URL", "MM_GATEWAY_KEY")
"""Read by the commands that ask a running gateway."""


def load_settings(models_file: Path | None, gateway_file: Path | None, environ: Mapping[str, str]) -> Settings:
    """All settings. Later sources win: the files' defaults, the files, the environment.

    Args:
        models_file, gateway_file: None: those that MM_GATEWAY_MODELS and MM_GATEWAY_CONFIG name, else `config/*.yaml`
            in the working folder, else those inside the package.
        environ: variables `MM_GATEWAY_<SECTION>_<KEY>` override `gateway.yaml`.

    Raises:
        ConfigurationError: something is wrong; the message is for the person who wrote it.
    """
    files = SettingsFiles(
        models=models_file or _default_file("models.yaml", environ.get("MM_GATEWAY_MODELS")),
        gateway=gateway_file or _default_file("gateway.yaml", environ.get("MM_GATEWAY_CONFIG")),
    )
    sections = read_sections(files.gateway, environ)
    settings = Settings(files=files, **sections)  # type: ignore[arg-type]
    settings = with_models(settings, files)
    return msgspec.structs.replace(settings, keys=read_keys(settings, files))


def read_sections(path: Path, environ: Mapping[str, str]) -> dict[str, msgspec.Struct]:
    """The sections of `gateway.yaml` by name, overridden by the environment; of keys only hashes.

    Raises:
        ConfigurationError: as `load_settings`.
    """
    content = read_mapping(path)
    check_keys(content, tuple(SECTIONS), f"{path}")
    overrides = _environment(environ)
    sections = {
        name: converted({**mapping(content.get(name), f"{path}: {name}"), **overrides.get(name, {})}, kind, f"{path}: {name}")
        for name, kind in SECTIONS.items()
    }
    engine = sections["engine"]
    assert isinstance(engine, EngineSettings)
    if engine.prefix_cache_folder is not None and not engine.prefix_cache_bytes:
        raise ConfigurationError(
            f"{path}: engine: prefix_cache_folder: needs prefix_cache_bytes, memory for what waits to be written: 512MiB, for example, "
            "or more than the longest prompt's keys and values take"
        )
    storage = sections["storage"]
    assert isinstance(storage, StorageSettings)
    if not storage.url:
        storage = msgspec.structs.replace(storage, url=None)  # a variable that is set to nothing
    elif not storage.url.startswith(("postgresql://", "postgres://")):
        # It is not quoted: there may be a password in it.
        raise ConfigurationError(f"{path}: storage: url: allowed is postgresql://USER@HOST/NAME, as libpq takes it, or null")
    return {**sections, "storage": storage, "server": _hashed(sections["server"], path)}


def with_models(settings: Settings, files: SettingsFiles) -> Settings:
    """The settings with what `models.yaml` says now.

    Raises:
        ConfigurationError: as `load_settings`; also where other settings name a model that is not there.
    """
    path = files.models
    content = read_mapping(path)
    check_keys(content, ("models", "default_model", "allow"), f"{path}")
    entries = content.get("models")
    if not isinstance(entries, dict) or not entries:
        raise ConfigurationError(f"{path}: models must be a mapping of at least one name to its entry")
    models = read_entries(mapping(cast(object, entries), f"{path}: models"), path)
    default_model = content.get("default_model")
    if default_model is not None and default_model not in models:
        raise ConfigurationError(f"{path}: default_model: {default_model!r} is not among the models: {', '.join(models)}")
    model, known = settings.workflows.model, model_names(models)
    if model is not None and model not in known:
        raise ConfigurationError(f"{files.gateway}: workflows: model: {model!r} is not among the models: {', '.join(models)}")
    for pattern, name in settings.anthropic.models.items():
        if not name.startswith(WORKFLOW_PREFIX) and name not in known:
            where = f"{files.gateway}: anthropic: models: {pattern}"
            raise ConfigurationError(f"{where}: {name!r} is not among the models: {', '.join(models)}")
    return msgspec.structs.replace(settings, models=models, allow=_allowed(content.get("allow"), path), default_model=default_model)


def read_keys(settings: Settings, files: SettingsFiles) -> tuple[ApiKey, ...]:
    """The keys of `server.api_keys_file`, for the models of the settings.

    Raises:
        ConfigurationError: as `read_key_file`.
    """
    path = files.keys_of(settings.server)
    return () if path is None else read_key_file(path, model_names(settings.models), settings.allow)


def _allowed(patterns: object, path: Path) -> tuple[str, ...]:
    """Patterns of hub models that requests may name."""
    try:
        return tuple(msgspec.convert(patterns if patterns is not None else [], list[HubPattern]))
    except msgspec.ValidationError:
        raise ConfigurationError(
            f'{path}: allow: got {patterns!r}, allowed is a list of {range_in_words(HubPattern)}: ["Qwen/*", "HuggingFaceTB/SmolLM2-*"]'
        ) from None


def _hashed(server: Any, path: Path) -> ServerSettings:
    """The section with hashes in the place of keys, so that no key stays in memory."""
    changes: dict[str, Any] = {}
    for name in ("api_keys", "admin_keys", "metrics_key"):
        given = getattr(server, name)
        try:
            changes[name] = hashed(given) if isinstance(given, str) else given and tuple(map(hashed, given))
        except ValueError as error:
            raise ConfigurationError(f"{path}: server: {name}: {error}") from None
    return msgspec.structs.replace(server, **changes)


def _default_file(name: str, named: str | None) -> Path:
    if named:
        return Path(named)
    local = Path("config") / name
    if local.is_file():
        return local
    installed = Path(str(importlib.resources.files("mm_gateway"))) / "config" / name
    # In a checkout the package has no folder of its own for them: they stand beside it.
    return installed if installed.is_file() else Path(__file__).parents[2] / "config" / name


def _environment(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    names = {
        f"MM_GATEWAY_{section}_{key}".upper(): f"{section}.{key}" for section, kind in SECTIONS.items() for key in kind.__struct_fields__
    }
    names |= _SHORT
    found: dict[str, dict[str, Any]] = {}
    for variable, text in environ.items():
        if not variable.startswith("MM_GATEWAY_") or variable in (*_FILES, *_OF_CLIENTS):
            continue
        if variable not in names:
            near = difflib.get_close_matches(variable, [*names, *_FILES], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigurationError(f"environment: unknown variable {variable}{hint}")
        section, key = names[variable].split(".")
        found.setdefault(section, {})[key] = of_text(text, SECTIONS[section], key, variable)
    return found
