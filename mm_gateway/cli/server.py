"""Runs the HTTP server until a signal ends it; says where it listens and how to ask."""

from __future__ import annotations

import ipaddress
import json
import socket
import sys

import click

from mm_gateway.catalog import build_catalog
from mm_gateway.errors import ConfigurationError
from mm_gateway.settings import ServerSettings, Settings


def serve(settings: Settings) -> None:
    """Listen and serve; returns after SIGTERM or SIGINT, when running requests have ended or their grace is over.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    listener = _listen(settings.server)
    # Only a process that will serve pays for these imports.
    import uvicorn

    from mm_gateway.api.app import create_app

    app = create_app(settings, build_catalog(settings))

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: object) -> None:
            app.state.draining = True  # new requests get a 503 while running ones finish
            super().handle_exit(sig, frame)  # type: ignore[arg-type]

    config = uvicorn.Config(
        app,
        log_level=settings.server.log_level,
        access_log=False,
        timeout_graceful_shutdown=max(1, round(settings.server.shutdown_grace_s)),
        server_header=False,
    )
    _banner(settings, listener)
    Server(config).run(sockets=[listener])


def _listen(server: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((server.host, server.port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {server.host}:{server.port}: {error.strerror}. Choose another with --port, or stop what uses it"
        ) from error
    listener.setblocking(False)
    return listener


def _banner(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    model = settings.default_model or next(iter(settings.models))
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]})
    authorization = " -H 'Authorization: Bearer YOUR_KEY'" if settings.server.api_keys else ""
    lines = [
        f"mm_gateway serves {address}/v1",
        f"  models: {', '.join(settings.models)}",
        f"  ask:    curl {address}/v1/chat/completions -H 'Content-Type: application/json'{authorization} -d '{body}'",
        f"  docs:   {address}/schema, README.md",
    ]
    click.echo("\n".join(lines), err=True)
    if not settings.server.api_keys and not _is_loopback(host):
        click.echo(f"  WARNING: everybody who reaches {host} can use this server. Set MM_GATEWAY_API_KEYS to ask for keys", err=True)
    sys.stderr.flush()


def _is_loopback(host: str) -> bool:
    return host == "localhost" or ipaddress.ip_address(host).is_loopback
