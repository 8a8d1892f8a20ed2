"""Entries of `models.yaml` from what YAML says of them, and whether what they say of each other fits."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import urlsplit

import msgspec

from mm_gateway.configuration.group_settings import group_fault, inside_out
from mm_gateway.configuration.model_config import ModelConfig, ModelType, as_draft, model_names, not_of_drafts
from mm_gateway.configuration.sections import converted
from mm_gateway.configuration.settings import WORKFLOW_PREFIX
from mm_gateway.configuration.yaml_file import mapping
from mm_gateway.errors import ConfigurationError
from mm_gateway.text import is_name

logger = logging.getLogger(__name__)

BUILT_IN_PREFIX = "builtin:"
PACKAGE_PREFIX = "package:"
_ONLY = {
    "base_url": "remote",
    "api_key_env": "remote",
    "api": "remote",
    "timeout_s": "remote",
    "delay_s": "mock",
    "script": "mock",
    "sampling": "local",
    "speculative_model": "local",
    "speculative_tokens": "local",
    "members": "group",
    "strategy": "group",
    "routing": "group",
}
_OF_GROUPS = ("backend", "aliases", "members", "strategy", "routing")
"""All that an entry of a group may say; the rest is said by its members' entries."""


def read_entries(entries: Mapping[str, object], path: Path) -> dict[str, ModelConfig]:
    """Every entry by its name. path: of the file, for errors; paths of entries are from its folder.

    Raises:
        ConfigurationError: a key or a value is wrong, or names another entry that is not there.
    """
    models = {name: _model(entry, name, path) for name, entry in entries.items()}
    _check_names(models, path)
    _check_groups(models, path)
    return _with_drafts(models, path)


def _model(entry: object, name: str, path: Path) -> ModelConfig:
    where = f"{path}: model {name}"
    given = mapping(entry, where)
    if given.get("backend") == "group":
        given = _group(given, name, where)
    if "members" in given:
        given["members"] = _with_keys(given["members"])
    own_draft: Any = given.pop("speculative_model") if isinstance(given.get("speculative_model"), Mapping) else None
    config = converted(given, ModelConfig, where)
    for key, backend in _ONLY.items():
        if (key in given or (key == "speculative_model" and own_draft is not None)) and config.backend != backend:
            raise ConfigurationError(f"{where}: {key}: is only allowed with backend: {backend}, this one is {config.backend}")
    if config.backend == "remote" and urlsplit(config.base_url or "").scheme not in ("http", "https"):
        raise ConfigurationError(f"{where}: base_url: must be an http:// or https:// address, got {config.base_url!r}")
    folder = path.parent
    changes: dict[str, Any] = {}
    if config.path is not None and config.path.startswith(BUILT_IN_PREFIX):
        changes["path"] = str(_built_in_model(config.path, where))
    elif config.path is not None and not config.path.startswith(PACKAGE_PREFIX):
        changes["path"] = str((folder / Path(config.path).expanduser()).resolve())
    if config.script is not None:
        changes["script"] = str((folder / Path(config.script).expanduser()).resolve())
    if config.chat_template is not None and config.chat_template not in get_args(ModelType):
        template = (folder / Path(config.chat_template).expanduser()).resolve()
        if not template.is_file():
            raise ConfigurationError(
                f"{where}: chat_template: {config.chat_template!r} is neither {', '.join(get_args(ModelType))} nor a file here"
            )
        changes["chat_template"] = str(template)
    if own_draft is not None:
        changes["speculative_model"] = _own_draft(own_draft, f"{name}: speculative_model", path)
    return msgspec.structs.replace(config, **changes) if changes else config


def _own_draft(entry: Mapping[str, object], name: str, path: Path) -> ModelConfig:
    """A draft that is no entry of its own."""
    if idle := not_of_drafts(entry):
        raise ConfigurationError(f"{path}: model {name}: {idle[0]}: means nothing for a model that guesses; leave it out")
    return _model(entry, name, path)


def _group(given: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    """An entry of a group in full."""
    for key in given:
        if key in ModelConfig.__struct_fields__ and key not in _OF_GROUPS:
            raise ConfigurationError(f"{where}: {key}: a group has none, the entries of its members say it")
    if not isinstance(given.get("members"), list):
        raise ConfigurationError(f"{where}: members must be a list of names of other entries, got {given.get('members')!r}")
    return {**given, "model_name": name}


def _with_keys(members: object) -> object:
    """Members that are names alone, by their keys."""
    if not isinstance(members, list):
        return members
    return [{"name": member} if isinstance(member, str) else member for member in cast(list[object], members)]


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


def _check_names(models: Mapping[str, ModelConfig], path: Path) -> None:
    for name in (name for model, config in models.items() for name in (model, *config.aliases)):
        if not is_name(name):
            raise ConfigurationError(f"{path}: model {name!r}: a name must be printable, and neither empty nor with spaces around it")
        if name.startswith(WORKFLOW_PREFIX):
            raise ConfigurationError(f"{path}: model {name}: names that begin with {WORKFLOW_PREFIX} are those of workflows")
    owner = {name: name for name in models}
    for name, config in models.items():
        for alias in config.aliases:
            if alias in owner:
                raise ConfigurationError(f"{path}: model {name}: aliases: {alias!r} already names {owner[alias]}")
            owner[alias] = name


def _check_groups(models: Mapping[str, ModelConfig], path: Path) -> None:
    """Raises ConfigurationError where a group's members are none, unknown, given twice, or hold the group itself."""
    groups = {name: config.members for name, config in models.items() if config.backend == "group"}
    for name in groups:
        if (fault := group_fault(name, groups, models)) is not None:
            raise ConfigurationError(f"{path}: model {name}: members: {fault}")
    try:
        inside_out(groups)
    except ValueError as error:
        raise ConfigurationError(f"{path}: models: {error}") from None


def _with_drafts(models: Mapping[str, ModelConfig], path: Path) -> dict[str, ModelConfig]:
    """Entries with those that their `speculative_model` names.

    Raises:
        ConfigurationError: there is none of that name, it is not local, or it goes round.
    """
    known = model_names(models)
    found: dict[str, ModelConfig] = {}
    for name, config in models.items():
        where = f"{path}: model {name}: speculative_model"
        round_: list[str] = [name]
        draft = config.speculative_model
        while isinstance(draft, str):
            if draft not in known:
                raise ConfigurationError(f"{where}: {draft!r} is not among the models: {', '.join(models)}")
            round_.append(known[draft])
            if round_.count(round_[-1]) > 1:
                raise ConfigurationError(f"{where}: goes round: {' -> '.join(round_)}")
            draft = models[round_[-1]].speculative_model
        if len(round_) > 1:
            if models[round_[1]].speculative_model is not None:
                logger.warning("%s: %s guesses without its own speculative_model, which is for its own requests", where, round_[1])
            config = msgspec.structs.replace(config, speculative_model=as_draft(models[round_[1]]))
        if isinstance(config.speculative_model, ModelConfig) and config.speculative_model.backend != "local":
            raise ConfigurationError(f"{where}: has to be a local model, this one is {config.speculative_model.backend}")
        found[name] = config
    return found
