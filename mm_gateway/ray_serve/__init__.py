"""Models as replicas of Ray Serve, on any number of machines; the API in this process, or as replicas beside them.

A replica holds a catalog as a gateway does, with its manager and engines. What the API sees of all replicas together is one more Backend.
`mm_gateway.ray_serve:application` is the import path for `serve deploy` and `serve run`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def application(arguments: Mapping[str, Any]) -> Any:
    """The whole gateway as an application of Ray Serve: the API as ingress, the models behind it.

    Serve makes it anew, and reads the files again, only where its arguments have changed.

    Args:
        arguments: `models` and `config`, paths of the files that `--models` and `--config` name; else the environment says, as for
            `mm-gateway serve`. They are read where the application is built: on the cluster's head. `version`: whatever differs
            from the one before, when only the contents of the files do.

    Raises:
        ConfigurationError: something is wrong; the message is for the person who wrote it.
    """
    from mm_gateway.configuration.loader import load_settings
    from mm_gateway.errors import ConfigurationError
    from mm_gateway.ray_serve.deployments import whole_gateway

    if unknown := set(arguments) - {"models", "config", "version"}:
        raise ConfigurationError(
            f"mm_gateway.ray_serve:application: unknown argument {min(unknown)!r}; allowed are models, config, version"
        )
    models, gateway = (Path(arguments[name]) if name in arguments else None for name in ("models", "config"))
    return whole_gateway(load_settings(models, gateway, os.environ))
