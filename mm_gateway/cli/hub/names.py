"""What a name on the command line means: an entry of models.yaml, or a repository of the hub with or without a file."""

from __future__ import annotations

from pathlib import Path

from mm_gateway.configuration.hub_names import gguf_parts, is_allowed, is_repository, split_file
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from mm_gateway.errors import DownloadError, InvalidRequestError
from mm_gateway.hub.download import cached


def entry_of(settings: Settings, name: str) -> ModelConfig | None:
    """The entry of that name or alias."""
    return next((config for entry, config in settings.models.items() if name == entry or name in config.aliases), None)


def repository_of(settings: Settings, name: str) -> tuple[str, str | None]:
    """The repository that a name means, and the file in it that is meant; None: all of it.

    Raises:
        InvalidRequestError: it is neither an entry that comes from the hub nor a name of a repository.
    """
    repository, file = split_file(name)
    config = entry_of(settings, repository)
    if config is not None and not is_from_hub(config):
        raise InvalidRequestError(f"{name} is an entry of models.yaml that does not come from the hub ({_origin(config)})")
    if config is not None:
        repository = config.model_name
    if not is_repository(repository) or file == "":
        raise InvalidRequestError(
            f"{name!r} is neither an entry of models.yaml nor the name of a hub repository: ORGANISATION/NAME, or ORGANISATION/NAME:FILE"
        )
    return repository, file


def config_of(settings: Settings, name: str) -> ModelConfig:
    """What is loaded for a name: an entry, a folder, or a hub model with or without a file.

    Raises:
        InvalidRequestError: it means none of these, or an entry that is not computed here. DownloadError: the file is not downloaded.
    """
    config = entry_of(settings, name)
    if config is not None and config.backend != "local":
        raise InvalidRequestError(f"{name} is answered by backend: {config.backend}. `mm-gateway models {name}` shows its entry")
    if config is not None or Path(name).expanduser().is_dir():
        return config or ModelConfig(model_name=name)
    repository, file = repository_of(settings, name)
    if file is not None and cached(repository, lambda _: gguf_parts(file), revision="main") is None:
        raise DownloadError(f"{name} is not downloaded, and a GGUF file says what it is only as a whole: mm-gateway pull {name}")
    return ModelConfig(model_name=repository, revision="main", gguf_file=file)


def is_from_hub(config: ModelConfig) -> bool:
    return config.backend == "local" and config.path is None and is_repository(config.model_name)


def users_of(settings: Settings, repository: str) -> list[str]:
    """Entries of models.yaml that load a repository, and `allow` where requests may name it."""
    entries = [name for name, config in settings.models.items() if is_from_hub(config) and config.model_name == repository]
    return [*entries, "allow"] if is_allowed(repository, settings.allow) else entries


def _origin(config: ModelConfig) -> str:
    return f"backend: {config.backend}" if config.backend != "local" else f"path: {config.path or config.model_name}"
