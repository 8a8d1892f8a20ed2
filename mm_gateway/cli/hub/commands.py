"""The commands as click knows them. What they do, and what that imports, is in the modules beside this one."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mm_gateway.cli.options import config_option, key_option, models_option, url_option
from mm_gateway.configuration.loader import load_settings


@click.command()
@click.argument("name")
@click.option("--revision", help="Branch, tag or commit.")
@models_option
@config_option
def pull(name: str, revision: str | None, models_file: Path | None, gateway_file: Path | None) -> None:
    """Download a model of the hub, or one file of it.

    NAME is an entry of models.yaml or a hub id, such as Qwen/Qwen3-0.6B. NAME:FILE downloads one GGUF file; FILE is its name, or its
    quantization, such as Q4_K_M. Begun again, a download goes on with the files that are missing.
    """
    from mm_gateway.cli.hub.pull import pull

    pull(load_settings(models_file, gateway_file, os.environ), name, revision)


@click.command(name="list")
@models_option
@config_option
def list_models(models_file: Path | None, gateway_file: Path | None) -> None:
    """List the models that are downloaded, and which entries of models.yaml use them."""
    from mm_gateway.cli.hub.cached import show_cached

    show_cached(load_settings(models_file, gateway_file, os.environ))


@click.command()
@click.argument("names", nargs=-1, required=True)
@models_option
@config_option
@url_option
@key_option
def rm(names: tuple[str, ...], models_file: Path | None, gateway_file: Path | None, url: str | None, key: str | None) -> None:
    """Delete downloaded models, or files of them (NAME:FILE).

    Refuses what a running gateway has in memory.
    """
    from mm_gateway.cli.hub.cached import remove_models

    remove_models(load_settings(models_file, gateway_file, os.environ), names, url, key)


@click.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Models shown at most.")
@click.option("--all", "all_kinds", is_flag=True, help="Also models that are not tagged as generating text.")
def search(words: tuple[str, ...], limit: int, all_kinds: bool) -> None:
    """Search the hub for models, the most downloaded first."""
    from mm_gateway.cli.hub.search import show_found

    show_found(" ".join(words), limit, all_kinds)


@click.command()
@config_option
@url_option
@key_option
def ps(gateway_file: Path | None, url: str | None, key: str | None) -> None:
    """List the models that a running gateway has in memory."""
    from mm_gateway.cli.hub.running import show_running

    show_running(load_settings(None, gateway_file, os.environ), url, key)


@click.command()
@click.argument("name")
@models_option
@config_option
@url_option
@key_option
def show(name: str, models_file: Path | None, gateway_file: Path | None, url: str | None, key: str | None) -> None:
    """Show what a model is: architecture, size, context, memory that it needs, chat template, tools.

    NAME is an entry of models.yaml, a hub id, NAME:FILE of a GGUF file in one, or a folder.
    """
    from mm_gateway.cli.hub.show import show_model

    show_model(load_settings(models_file, gateway_file, os.environ), name, url, key)


@click.command()
@click.argument("name")
@models_option
@config_option
def bench(name: str, models_file: Path | None, gateway_file: Path | None) -> None:
    """Measure how fast a model is on this machine: tokens a second for 1, 4 and 16 clients, and what the memory allows.

    NAME is an entry of models.yaml, a hub id, NAME:FILE of a GGUF file in one, or a folder.
    """
    from mm_gateway.cli.hub.bench import bench_model

    bench_model(load_settings(models_file, gateway_file, os.environ), name)


COMMANDS = (pull, list_models, rm, search, ps, show, bench)
