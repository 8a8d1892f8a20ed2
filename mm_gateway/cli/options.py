"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

_FILE = click.Path(dir_okay=False, path_type=Path)

models_option = click.option("--models", "models_file", type=_FILE, help="models.yaml to use.")
config_option = click.option("--config", "gateway_file", type=_FILE, help="gateway.yaml to use.")
url_option = click.option("--url", envvar="MM_GATEWAY_URL", help="Address of the running gateway; default: as gateway.yaml says.")
key_option = click.option("--key", envvar="MM_GATEWAY_KEY", help="A key of the running gateway; best given as MM_GATEWAY_KEY.")
