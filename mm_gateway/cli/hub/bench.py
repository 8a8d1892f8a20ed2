"""`mm-gateway bench`: prints how fast a model is on this machine, and how near that is to what the memory allows."""

from __future__ import annotations

import click

from mm_gateway.cli.hub.names import config_of
from mm_gateway.cli.hub.table import show_table
from mm_gateway.configuration.settings import Settings
from mm_gateway.hub.download import size_in_words

CLIENTS = (1, 4, 16)


def bench_model(settings: Settings, name: str) -> None:
    """Load a model and print its speeds.

    Raises:
        InvalidRequestError: the name means no model of this machine or the hub. ModelLoadError: it cannot be loaded.
    """
    config = config_of(settings, name)
    from mm_gateway.runtime.model_speed import measure_model  # brings torch

    found = measure_model(config, settings.engine, CLIENTS)
    click.echo(f"{name}: {size_in_words(found.weight_bytes)} of weights on {found.device}, loaded in {found.load_s:.1f} s")
    rows = [
        (str(clients), f"{speed.output_per_s:.1f}", f"{speed.output_per_s / clients:.1f}", f"{speed.first_s * 1e3:.0f}")
        for clients, speed in found.by_clients.items()
    ]
    show_table(("clients", "output tokens/s", "each", "first token, ms"), rows)
    click.echo(f"A prompt of {found.prompt_tokens} tokens: {found.prompt_per_s:.0f} tokens/s")
    if found.memory_gb_per_s is not None:
        share = found.by_clients[1].output_per_s * found.weight_bytes / 1e9 / found.memory_gb_per_s
        click.echo(f"Memory gives {found.memory_gb_per_s:.1f} GB/s. One client reads the weights once a token, at {share:.0%} of that.")
