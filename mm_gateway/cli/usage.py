"""`mm-gateway usage`: what keys have used, from the storage that running gateways write."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from mm_gateway.cli.hub.table import show_table
from mm_gateway.cli.options import config_option
from mm_gateway.configuration.loader import load_settings


@click.command()
@click.option("--by", "group_by", default="day,key,model", show_default=True, help="Of day, month, key, model, endpoint.")
@click.option("--start", help="The first day: 2026-11-01, today, yesterday.")
@click.option("--end", help="The last day.")
@click.option("--key", help="Of this key alone, by its name.")
@click.option("--model", help="Of this model alone.")
@click.option("--endpoint", help="Of this endpoint alone, such as /v1/chat/completions.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@config_option
def usage(group_by: str, start: str | None, end: str | None, as_json: bool, gateway_file: Path | None, **filters: str | None) -> None:
    """Show requests, tokens and money by day, key and model. Days are those of UTC; the last second may be missing."""
    from mm_gateway.storage.usage_store import USAGE_FILE, UsageStore, read_day, read_dimensions

    try:
        dimensions = read_dimensions(group_by)
        days = {name: read_day(day) for name, day in (("start", start), ("end", end)) if day is not None}
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    place = load_settings(None, gateway_file, os.environ).storage.place(USAGE_FILE)
    rows = []
    if not isinstance(place, Path) or place.is_file():
        store = UsageStore(place)
        try:
            rows = store.report(dimensions, **days, **filters)
        finally:
            store.close()
    if as_json:
        for row in rows:
            values = {name: value for name, value in msgspec.structs.asdict(row).items() if value is not None}
            click.echo(msgspec.json.encode(values).decode())
    elif not rows:
        click.echo("Nothing was used")
    else:
        sums = ("requests", "prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cost")
        head = (*(name.upper() for name in dimensions), "REQUESTS", "PROMPT", "CACHED", "OUTPUT", "REASONING", "COST")
        show_table(
            head,
            [(*(getattr(row, name) or "-" for name in dimensions), *(f"{getattr(row, name):,.10g}" for name in sums)) for row in rows],
        )
