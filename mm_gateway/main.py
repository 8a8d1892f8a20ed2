"""The command line: `mm-gateway serve | models | query | chat | index | check | keys | usage | doctor`, and the commands of `cli/hub`;
the guide's own flags through `python -m mm_gateway.main`.

    python -m mm_gateway.main --model-info [NAME]
    python -m mm_gateway.main --real-models --model gpt2 "…"
    python -m mm_gateway.main --real-models --model gpt2 --mode chat

Nothing here imports torch or the HTTP server before it is needed, so help, listings and checks are quick.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

import mm_gateway
from mm_gateway.cli.doctor.command import doctor
from mm_gateway.cli.hub.commands import COMMANDS
from mm_gateway.cli.keys import keys
from mm_gateway.cli.log import log_to_stderr
from mm_gateway.cli.options import config_option, models_option
from mm_gateway.cli.usage import usage
from mm_gateway.configuration.loader import load_settings
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import WORKFLOW_PREFIX, Settings
from mm_gateway.core import GenerationConfig, Message
from mm_gateway.errors import ConfigurationError, GatewayError, ModelNotFoundError

if TYPE_CHECKING:
    from mm_gateway.catalog import Catalog


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mm_gateway.__version__, prog_name="mm-gateway")
def cli() -> None:
    """Many Hugging Face models behind one OpenAI-compatible address."""


@cli.command()
@models_option
@config_option
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
@click.option("--ray", "cluster", metavar="ADDRESS", help="Run the models on a Ray cluster: HOST:PORT, auto, or local for one of its own.")
def serve(models_file: Path | None, gateway_file: Path | None, host: str | None, port: int | None, cluster: str | None) -> None:
    """Start the gateway."""
    settings = load_settings(models_file, gateway_file, os.environ)
    server = settings.server
    server = msgspec.structs.replace(server, host=server.host if host is None else host, port=server.port if port is None else port)
    settings = msgspec.structs.replace(settings, server=server)
    log_to_stderr(server.log_level)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    from mm_gateway.cli.server import serve

    serve(settings, cluster)


@cli.command()
@click.argument("name", required=False)
@models_option
@config_option
def models(name: str | None, models_file: Path | None, gateway_file: Path | None) -> None:
    """List the configured models and the workflows, or show one."""
    show_models(load_settings(models_file, gateway_file, os.environ), name)


@cli.command()
@models_option
@config_option
def check(models_file: Path | None, gateway_file: Path | None) -> None:
    """Validate the configuration."""
    settings = load_settings(models_file, gateway_file, os.environ)
    click.echo(f"The configuration is valid: {len(settings.models)} models ({', '.join(settings.models)})")


for command in (*COMMANDS, keys, usage, doctor):
    cli.add_command(command)


@cli.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--rebuild", is_flag=True, help="Read everything anew; with PATHS, index nothing else.")
@click.option("--list", "list_only", is_flag=True, help="Show what is indexed.")
@config_option
def index(paths: tuple[Path, ...], rebuild: bool, list_only: bool, gateway_file: Path | None) -> None:
    """Index Markdown, text, HTML and PDF files for search-qa.

    Folders are searched for them. What has changed since the last time is read again, what is gone drops out. Without PATHS, what
    search.index_paths names and what was indexed before is brought up to date.
    """
    from mm_gateway.cli.index import show_index, update_index

    settings = load_settings(None, gateway_file, os.environ)
    if list_only:
        show_index(settings)
    elif not update_index(settings, paths, rebuild=rebuild):
        sys.exit(1)


def _generation_options(command):  # type: ignore[no-untyped-def]
    for option in reversed(
        [
            click.option("--model", "-m", help="Model to ask; default: the configured default_model."),
            click.option("--system", "-s", help="System message."),
            click.option("--max-tokens", type=click.IntRange(1), help="Upper bound of the answer."),
            click.option("--temperature", type=click.FloatRange(0, 2), help="0 is greedy."),
            click.option("--seed", type=int, help="Same seed, same answer."),
            models_option,
            config_option,
        ]
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("text")
@_generation_options
def query(
    text: str,
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    models_file: Path | None,
    gateway_file: Path | None,
) -> None:
    """Ask one question; the answer streams to the terminal."""
    settings = load_settings(models_file, gateway_file, os.environ)
    config = GenerationConfig(max_new_tokens=max_tokens, temperature=temperature, seed=seed)
    _run(settings, model, _query(text, system, config))


@cli.command()
@_generation_options
def chat(
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    models_file: Path | None,
    gateway_file: Path | None,
) -> None:
    """Hold a conversation in the terminal."""
    settings = load_settings(models_file, gateway_file, os.environ)
    config = GenerationConfig(max_new_tokens=max_tokens, temperature=temperature, seed=seed)
    _run(settings, model, _chat(system, config))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("text", required=False)
@click.option("--model-info", is_flag=False, flag_value="", default=None, metavar="[NAME]", help="List the models, or show one.")
@click.option("--real-models", is_flag=True, help="Use the configured model; without it, the mock answers.")
@click.option("--mode", type=click.Choice(["query", "chat"]), default="query", show_default=True)
@_generation_options
def guide_command(
    text: str | None,
    model_info: str | None,
    real_models: bool,
    mode: str,
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    models_file: Path | None,
    gateway_file: Path | None,
) -> None:
    """The guide's command line. For everything else: mm-gateway --help."""
    settings = load_settings(models_file, gateway_file, os.environ)
    if model_info is not None:
        show_models(settings, model_info or None)
        return
    if not real_models:
        mock = ModelConfig(model_name="mock", backend="mock")
        settings, model = msgspec.structs.replace(settings, models={"mock": mock}, default_model="mock"), "mock"
    config = GenerationConfig(max_new_tokens=max_tokens, temperature=temperature, seed=seed)
    if mode == "chat":
        _run(settings, model, _chat(system, config))
    elif text is None:
        raise click.UsageError("Give a question, or --mode chat, or --model-info")
    else:
        _run(settings, model, _query(text, system, config))


def show_models(settings: Settings, name: str | None) -> None:
    """Print all models and workflows, one a line, or everything about one."""
    from mm_gateway.workflows.all_workflows import WORKFLOWS

    workflows = {f"{WORKFLOW_PREFIX}{workflow.name}": workflow for workflow in WORKFLOWS.values()}
    if name is None:
        for entry, config in settings.models.items():
            default = "*" if entry == settings.default_model else " "
            form = config.quantization or config.dtype
            click.echo(f"{default} {entry:24} {config.backend:8} {config.model_name:32} {config.model_type or '-':10} {form}")
        for entry, workflow in workflows.items():
            click.echo(f"  {entry:24} workflow {workflow.description}")
        return
    if workflow := workflows.get(name):
        _show(name, workflow.described())
        return
    found = next((config for entry, config in settings.models.items() if name == entry or name in config.aliases), None)
    if found is None:
        raise ModelNotFoundError(name, (*settings.models, *workflows))
    _show(name, msgspec.structs.asdict(found))


def _show(name: str, values: Mapping[str, object]) -> None:
    click.echo(name)
    for key, value in values.items():
        click.echo(f"  {key:20} {msgspec.json.encode(value).decode()}")


def _query(text: str, system: str | None, config: GenerationConfig):  # type: ignore[no-untyped-def]
    async def run(catalog: Catalog, model: str) -> None:
        from mm_gateway.cli.console import answer

        messages = [Message(role="system", content=system)] if system else []
        await answer(catalog, model, [*messages, Message(role="user", content=text)], config)

    return run


def _chat(system: str | None, config: GenerationConfig):  # type: ignore[no-untyped-def]
    async def run(catalog: Catalog, model: str) -> None:
        from mm_gateway.cli.console import chat

        await chat(catalog, model, system, config)

    return run


def _run(settings: Settings, model: str | None, work) -> None:  # type: ignore[no-untyped-def]
    """Run `work(catalog, model)` with a catalog of its own."""
    # Whoever asks gets the error itself; the log would say it once more.
    logging.getLogger("mm_gateway.runtime.residency").setLevel(logging.ERROR)
    from mm_gateway.catalog import build_catalog

    async def main() -> None:
        catalog = build_catalog(settings)
        try:
            await work(catalog, model or settings.default_model or next(iter(settings.models)))
        finally:
            await catalog.close()

    asyncio.run(main())


def run(command: click.Command = cli, args: list[str] | None = None) -> None:
    """Run a command; errors become one line on stderr and an exit code: 1, or 2 where the configuration is wrong."""
    try:
        command.main(args, standalone_mode=False)
    except ConfigurationError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except GatewayError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)


if __name__ == "__main__":
    # The guide's flags live here; the subcommands work here too.
    first = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), None)
    run(cli if first in cli.commands and sys.argv[1] == first else guide_command)
