"""`mm-gateway show`: what a model is, from its files, and how a running gateway holds it."""

from __future__ import annotations

import sys

import click

from mm_gateway.cli.hub.names import config_of
from mm_gateway.cli.hub.running import in_words, running_models
from mm_gateway.cli.hub.table import count_in_words
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from mm_gateway.errors import UpstreamError
from mm_gateway.hub.download import size_in_words


def show_model(settings: Settings, name: str, url: str | None, key: str | None) -> None:
    """Print what is known of a model, a fact a line.

    Raises:
        InvalidRequestError: the name means no model of this machine or the hub. ModelLoadError: its files cannot be had or read.
    """
    config = config_of(settings, name)
    if sys.stderr.isatty():
        click.echo("reading…\r", nl=False, err=True)
    from mm_gateway.runtime.model_description import describe  # brings torch

    found = describe(config, settings)
    size, count = size_in_words(sum(found.files.values())), len(found.files)
    stored = f"{size} in {count} file{'s' if count > 1 else ''}" if found.files else "not downloaded"
    rows = [
        ("files", str(found.folder)),
        ("architecture", found.architecture),
        ("parameters", count_in_words(found.parameters)),
        ("context", f"{found.context_length} tokens"),
        ("weights", f"{found.stored}, {stored}"),
    ]
    if found.need is not None:
        weights, kv_cache = size_in_words(found.need.weight_bytes), size_in_words(found.need.kv_cache_bytes)
        budget = size_in_words(found.budget_bytes)
        rows.append(("memory", f"{weights} of weights and up to {kv_cache} of KV cache on {found.device}, where models may take {budget}"))
    rows += [("chat template", found.chat_template), ("tools", found.tool_format or found.tools_refused), ("thoughts", found.thoughts)]
    if (state := _running(settings, name, config, url, key)) is not None:
        rows.append(("running", state))
    click.echo(name)
    for title, value in rows:
        click.echo(f"  {title:14} {value}")


def _running(settings: Settings, name: str, config: ModelConfig, url: str | None, key: str | None) -> str | None:
    """How a running gateway holds it; None where none answers, or it does not serve it."""
    try:
        cards = running_models(settings, url, key)
    except UpstreamError:
        if url is not None:
            raise
        return None
    for card in cards:
        if name in (card.id, *card.aliases) or card.details.get("model_name") == config.model_name:
            return in_words(card)
    return None
