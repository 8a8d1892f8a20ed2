"""`mm-gateway list` and `rm`: the models in the hub's local cache."""

from __future__ import annotations

from collections.abc import Sequence

import click

from mm_gateway.cli.hub.names import repository_of, users_of
from mm_gateway.cli.hub.running import running_models
from mm_gateway.cli.hub.table import show_table, since
from mm_gateway.configuration.settings import Settings
from mm_gateway.errors import InvalidRequestError, UpstreamError
from mm_gateway.hub.cached_models import cached_models, remove
from mm_gateway.hub.download import size_in_words


def show_cached(settings: Settings) -> None:
    """Print what is downloaded, a model a line."""
    models = cached_models()
    if not models:
        click.echo("Nothing is downloaded yet. Download a model: mm-gateway pull NAME; find one: mm-gateway search WORDS")
        return
    rows = [
        (model.name, size_in_words(model.size_bytes), since(model.modified_s), ", ".join(users_of(settings, model.name)) or "-")
        for model in models
    ]
    show_table(("NAME", "SIZE", "DOWNLOADED", "USED BY"), rows)


def remove_models(settings: Settings, names: Sequence[str], url: str | None, key: str | None) -> None:
    """Delete models, or files of them, from the cache.

    Raises:
        InvalidRequestError: a name means nothing on the hub, or a running gateway has it in memory. DownloadError: it is not there.
    """
    meant = [repository_of(settings, name) for name in names]
    loaded = _loaded(settings, url, key)
    for name, (repository, _) in zip(names, meant, strict=True):
        if repository in loaded:
            raise InvalidRequestError(
                f"{name} is in the memory of the running gateway, as {loaded[repository]}. Unload it first, or stop the gateway"
            )
    for name, (repository, file) in zip(names, meant, strict=True):
        click.echo(f"{name} is deleted, {size_in_words(remove(repository, file))} are free")
        if users := users_of(settings, repository):
            click.echo(f"{', '.join(users)} of models.yaml will download it again when it is asked for")


def _loaded(settings: Settings, url: str | None, key: str | None) -> dict[str, str]:
    """Repositories that a running gateway has in memory, with their names there; none where no gateway says so."""
    try:
        cards = running_models(settings, url, key)
    except UpstreamError as error:
        # Nobody listens at the default address: no gateway runs. Whoever names one wants it asked.
        if url is not None or error.code != "unreachable":
            raise
        return {}
    return {str(card.details.get("model_name")): card.id for card in cards if card.state != "cold"}
