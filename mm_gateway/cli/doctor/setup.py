"""Checks of what was installed and configured: the files, what entries need, keys, packages, the port."""

from __future__ import annotations

import importlib.metadata
import ipaddress
import os
import platform
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
from packaging.requirements import Requirement

from mm_gateway.cli.doctor.finding import Finding
from mm_gateway.configuration.loader import load_settings
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.model_entries import PACKAGE_PREFIX
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import Settings
from mm_gateway.errors import ConfigurationError, StorageError
from mm_gateway.storage.key_store import KEYS_FILE, holds_keys

DISTRIBUTION = "mm-gateway"
ANSWER_S = 2.0


def configuration(models_file: Path | None, gateway_file: Path | None) -> tuple[Settings | None, Finding]:
    """The settings, where they are valid."""
    try:
        settings = load_settings(models_file, gateway_file, os.environ)
    except ConfigurationError as error:
        return None, Finding("configuration", "fail", str(error), "Correct it; `mm-gateway check` looks at it again")
    files = settings.files
    assert files is not None
    return settings, Finding("configuration", "ok", f"{files.models} with {len(settings.models)} models, and {files.gateway}")


def entries(settings: Settings) -> Iterator[Finding]:
    """Whether what entries name is there: folders, files, keys of other servers."""
    wrong = [finding for name, config in settings.models.items() if (finding := _entry(name, config)) is not None]
    yield from wrong or [Finding("models", "ok", "what their entries name is there")]


def _entry(name: str, config: ModelConfig) -> Finding | None:
    check = f"model {name}"
    if config.api_key_env is not None and not os.environ.get(config.api_key_env):
        return Finding(check, "warn", f"api_key_env names {config.api_key_env}, which is not set", f"Set {config.api_key_env}")
    path = config.path
    if path is not None and not path.startswith(PACKAGE_PREFIX) and not Path(path).exists():
        return Finding(check, "warn", f"path: {path} does not exist", "Correct the path, or put the model there")
    if isinstance(config.speculative_model, ModelConfig) and (found := _entry(f"{name}: speculative_model", config.speculative_model)):
        return found
    if config.speculative_model is not None:
        from mm_gateway.runtime.checkpoints.draft import ANOTHER_DRAFT, draft_fault  # with transformers, which takes a while

        if (fault := draft_fault(config)) is not None:
            return Finding(f"{check}: speculative_model", "warn", fault, ANOTHER_DRAFT)
    if config.script is not None and not Path(config.script).is_file():
        return Finding(check, "fail", f"script: {config.script} does not exist", "Correct the path")
    return None


def access(settings: Settings) -> Finding:
    """Who may ask."""
    host = settings.server.host
    try:
        asks = settings.asks_for_keys or holds_keys(settings.storage.place(KEYS_FILE))
    except (ConfigurationError, StorageError) as error:
        return Finding("access", "fail", f"the keys that were made cannot be read: {error}", "Correct what is said of the storage")
    if asks:
        return Finding("access", "ok", "clients need keys")
    if _is_loopback(host):
        return Finding("access", "ok", f"everybody on this machine may ask; {host} is not reached from others")
    advice = "Set MM_GATEWAY_API_KEYS, name a key file, or make a key: mm-gateway keys make --name NAME"
    return Finding("access", "warn", f"no keys are configured, and {host} is reached from other machines", advice)


def database(settings: Settings) -> Iterator[Finding]:
    """Whether the database of `storage.url` can be used, where there is one."""
    url = settings.storage.url
    if url is None:
        return
    try:
        from mm_gateway.storage.postgres import why_not
        from mm_gateway.storage.postgres_server import address
    except ConfigurationError as error:
        yield Finding("database", "fail", str(error), "pip install 'mm-gateway[postgres]'")
        return
    try:
        where = address(url)
    except ConfigurationError as error:
        yield Finding("database", "fail", str(error), "Correct storage.url")
        return
    fault = why_not(url)
    if fault is None:
        yield Finding("database", "ok", f"{where} can be written to; sessions, responses, keys, usage and limits are there")
    else:
        yield Finding("database", "fail", f"{where} cannot be used: {fault}", "Start it, or correct storage.url")


def packages() -> Iterator[Finding]:
    """Python, and what the package requires in the versions that it does."""
    yield Finding("python", "ok", platform.python_version())  # an older one could not even read this file
    try:
        required = [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or ()]
    except importlib.metadata.PackageNotFoundError:
        yield Finding("packages", "warn", "mm-gateway runs without having been installed", "Install it: pip install -e . in its folder")
        return
    needed = [requirement for requirement in required if requirement.marker is None or requirement.marker.evaluate({"extra": ""})]
    wrong = [(requirement, found) for requirement in needed if not _fits(requirement, found := _version(requirement.name))]
    for requirement, found in wrong:
        there = "is missing" if found is None else f"is there in version {found}"
        yield Finding("packages", "fail", f"{requirement} is required, and {there}", f'pip install "{requirement}"')
    if not wrong:
        main = ", ".join(f"{name} {_version(name)}" for name in ("torch", "transformers", "litestar", "uvicorn"))
        yield Finding("packages", "ok", f"all {len(needed)} in the versions required; {main}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fits(requirement: Requirement, version: str | None) -> bool:
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def port(server: ServerSettings) -> Finding:
    """Whether it can be listened on."""
    where = f"{server.host}:{server.port}"
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((server.host, server.port))
            listener.listen(1)
        except OSError as error:
            advice = "Choose another with --port or server.port, or stop what uses it"
            if _is_gateway(server):
                return Finding("port", "warn", f"{where}: a gateway runs there already", advice)
            return Finding("port", "fail", f"{where} cannot be listened on: {error.strerror}", advice)
    return Finding("port", "ok", f"{where} is free")


def _is_gateway(server: ServerSettings) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)
    address = f"http://{f'[{host}]' if ':' in host else host}:{server.port}/health"
    try:
        reply = httpx.get(address, timeout=ANSWER_S, trust_env=False)
        return {"status", "version"} <= reply.json().keys()
    except (httpx.HTTPError, ValueError, AttributeError):
        return False


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
