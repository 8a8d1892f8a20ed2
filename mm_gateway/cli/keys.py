"""`mm-gateway keys`: lines for the key file, and keys in the storage, which a running gateway takes over without a restart."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from mm_gateway.cli.hub.table import show_table
from mm_gateway.cli.options import config_option, models_option
from mm_gateway.configuration.api_key import NAME_FAULT, ApiKey, digest_of, hashed, new_key, read_expiry
from mm_gateway.configuration.key_file import known_models
from mm_gateway.configuration.loader import load_settings
from mm_gateway.configuration.model_config import model_names
from mm_gateway.configuration.settings import Settings
from mm_gateway.errors import ConfigurationError, InvalidRequestError
from mm_gateway.text import is_name

if TYPE_CHECKING:
    from mm_gateway.storage.key_store import KeyStore

_COUNT = click.IntRange(1)


class _Cost(click.FloatRange):
    """An amount of money above 0."""

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        cost = super().convert(value, param, ctx)
        if not math.isfinite(cost):  # it would be stored as no budget
            self.fail(f"{value} is no amount.", param, ctx)
        return cost


_COST = _Cost()


@click.group()
def keys() -> None:
    """API keys of clients: made, listed, changed and deleted, without a restart."""


@keys.command()
@click.option("--name", default="", help="Whose it is.")
def new(name: str) -> None:
    """Make a key for the key file. It is shown once; the file holds only its hash."""
    if name and not is_name(name):
        raise InvalidRequestError(f"--name: {NAME_FAULT}")
    key = new_key()
    _show_secret(key)
    click.echo(f"Add this line to the file that server.api_keys_file names:\n{f'{hashed(key)} {name}'.strip()}")


def _limits(command):  # type: ignore[no-untyped-def]
    for option in reversed(
        [
            click.option("--model", "models", multiple=True, help="A model that it may use, and no others; may be given several times."),
            click.option("--requests-per-minute", type=_COUNT, help="Requests a minute."),
            click.option("--tokens-per-minute", type=_COUNT, help="Tokens a minute."),
            click.option("--tokens-per-day", type=_COUNT, help="Budget of tokens a day."),
            click.option("--tokens-per-month", type=_COUNT, help="Budget of tokens a month."),
            click.option("--cost-per-day", type=_COST, help="Budget of money a day, by the models' prices."),
            click.option("--cost-per-month", type=_COST, help="Budget of money a month."),
            click.option("--expires", help="A day (2027-01-31), a time, or from now on: 30d, 12h, 90m."),
            models_option,
            config_option,
        ]
    ):
        command = option(command)
    return command


@keys.command()
@click.option("--name", default="", help="Whose it is; default: its id.")
@_limits
def make(name: str, models_file: Path | None, gateway_file: Path | None, **limits: Any) -> None:
    """Make a key that opens at once. It is shown once; only its hash is stored."""
    settings = load_settings(models_file, gateway_file, os.environ)
    secret = new_key()
    if name and not is_name(name):
        raise InvalidRequestError(f"--name: {NAME_FAULT}")
    if name and any(key.principal == name for key in settings.keys):
        raise InvalidRequestError(f"{name!r} already names a key of the key file")
    with _store(settings) as store:
        made = store.add(ApiKey(digest=digest_of(secret), name=name, **_given(limits, settings)))
    _show_secret(secret)
    click.echo(f"It is called {made.key.name}, and opens within a second in a gateway that runs.")


@keys.command()
@click.argument("name")
@_limits
def change(name: str, models_file: Path | None, gateway_file: Path | None, **limits: Any) -> None:
    """Change limits, budgets, models or expiry of a key; what is not given stays. NAME is its name or id."""
    settings = load_settings(models_file, gateway_file, os.environ)
    given = _given(limits, settings)
    if not given:
        raise click.UsageError("Say what is to be changed, such as --tokens-per-day 100000")
    _change(settings, name, **given)


@keys.command(name="list")
@models_option
@config_option
def list_keys(models_file: Path | None, gateway_file: Path | None) -> None:
    """List the keys: those of the key file, and those that were made."""
    settings = load_settings(models_file, gateway_file, os.environ)
    with _store(settings) as store:
        made = store.all()
    rows = [_row(key, "key file", "-") for key in settings.keys] + [_row(entry.key, entry.id, _day(entry.created_at)) for entry in made]
    if not rows:
        click.echo("There are no keys, so everybody who reaches the gateway may use it. Make one: mm-gateway keys make --name NAME")
        return
    show_table(("NAME", "ID", "MADE", "STATE", "LIMITS", "MODELS"), rows)


@keys.command()
@click.argument("name")
@models_option
@config_option
def disable(name: str, models_file: Path | None, gateway_file: Path | None) -> None:
    """Let a key open nothing, until it is enabled. NAME is its name or id."""
    _change(load_settings(models_file, gateway_file, os.environ), name, disabled=True)


@keys.command()
@click.argument("name")
@models_option
@config_option
def enable(name: str, models_file: Path | None, gateway_file: Path | None) -> None:
    """Let a key that was disabled open again. NAME is its name or id."""
    _change(load_settings(models_file, gateway_file, os.environ), name, disabled=False)


@keys.command()
@click.argument("name")
@models_option
@config_option
def delete(name: str, models_file: Path | None, gateway_file: Path | None) -> None:
    """Delete a key; what it used is still told. NAME is its name or id."""
    with _store(load_settings(models_file, gateway_file, os.environ)) as store:
        click.echo(f"{store.delete(name).key.name} is deleted")


@contextmanager
def _store(settings: Settings) -> Generator[KeyStore]:
    from mm_gateway.storage.key_store import KEYS_FILE, KeyStore

    store = KeyStore(settings.storage.place(KEYS_FILE))
    try:
        yield store
    finally:
        store.close()


def _change(settings: Settings, name: str, **changes: Any) -> None:
    with _store(settings) as store:
        made = store.change(name, lambda key: msgspec.structs.replace(key, **changes))
    click.echo(f"{made.key.name} is changed, within a second in a gateway that runs")


def _given(limits: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """What was given of the options, as fields of a key."""
    given = {name: value for name, value in limits.items() if value is not None and name not in ("models", "expires")}
    if limits["models"]:
        given["models"] = known_models(limits["models"], model_names(settings.models), settings.allow, "--model")
    if limits["expires"] is not None:
        try:
            given["expires_at"] = read_expiry(limits["expires"], time.time())
        except ValueError as error:
            raise ConfigurationError(f"--expires: {error}") from None
    return given


def _show_secret(key: str) -> None:
    click.echo(f"Give this to the client, it cannot be shown again:\n{key}\n")


def _row(key: ApiKey, id: str, made: str) -> tuple[str, ...]:
    expired = key.expires_at is not None and key.expires_at <= time.time()
    until = f"until {_day(key.expires_at)}" if key.expires_at is not None else "open"
    limits = [
        f"{value:g} {name.replace('_', ' ')}"
        for name, value in msgspec.structs.asdict(key).items()
        if "_per_" in name and value is not None
    ]
    state = "disabled" if key.disabled else "expired" if expired else until
    return (key.principal, id, made, state, ", ".join(limits) or "-", ", ".join(key.models) or "all")


def _day(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d")
