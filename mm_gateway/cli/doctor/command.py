"""The command as click knows it: what is found, as lines or as JSON."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from mm_gateway.cli.doctor.finding import Finding
from mm_gateway.cli.options import config_option, models_option

_COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON list of {check, status, found, advice}.")
@models_option
@config_option
def doctor(as_json: bool, models_file: Path | None, gateway_file: Path | None) -> None:
    """Look at the machine and the configuration, and say what to do before `mm-gateway serve`.

    Each line is ok, warn (it works, but not all of it, or slowly) or fail. Ends with status 1 where something fails.
    """
    from mm_gateway.cli.doctor.examination import examine

    findings: list[Finding] = []
    for finding in examine(models_file, gateway_file):
        findings.append(finding)
        if not as_json:
            _show(finding)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(findings)).decode())
    if any(finding.status == "fail" for finding in findings):
        sys.exit(1)


def _show(finding: Finding) -> None:
    status = click.style(finding.status.ljust(4), fg=_COLORS[finding.status])
    click.echo(f"{status}  {finding.check:14} {finding.found}")
    if finding.advice:
        click.echo(f"{'':21}→ {finding.advice}")
