"""Runs the HTTP server until a signal ends it; says where it listens and how to ask."""

from __future__ import annotations

import gc
import ipaddress
import json
import resource
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.server_settings import LimitSettings, ServerSettings
from mm_gateway.configuration.settings import Settings
from mm_gateway.errors import ConfigurationError
from mm_gateway.storage.key_store import KEYS_FILE, holds_keys

if TYPE_CHECKING:
    from mm_gateway.ray_serve.cluster import Cluster

SWITCH_INTERVAL_S = 0.0005
"""For which a thread keeps the interpreter that another waits for. Python's own 5 ms are what an engine would wait for after each kernel,
and the event loop after each system call, while somebody else computes.
"""


def serve(settings: Settings, ray: str | None = None) -> None:
    """Listen and serve until SIGTERM or SIGINT; the process ends with status 0 when running requests have ended or their grace is over.

    Args:
        ray: address of the Ray cluster that runs the models, as for `ray_serve.cluster.Cluster`; None: they run in this process.

    Raises:
        ConfigurationError: the address cannot be listened on, the cluster cannot run the models, or the database cannot be used.
    """
    if settings.storage.url is not None:
        _check_database(settings.storage.url)
    with _listen(settings.server) as listener:
        _serve(settings, listener, ray)


def _serve(settings: Settings, listener: socket.socket, ray: str | None) -> None:
    # Only a process that will serve pays for these imports.
    from mm_gateway.api.app import create_app
    from mm_gateway.cli.gateway_server import GatewayServer, leave

    cluster = _connected(settings, ray) if ray is not None else None
    catalog = cluster.catalog() if cluster is not None else build_catalog(settings)
    app = create_app(settings, catalog)

    _allow_connections(settings.limits)
    # What is loaded by now lives as long as the process. Left out of garbage collections, it does not stop every request for each of them.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _banner(settings, [info.id for info in catalog.infos() if info.id not in settings.models], listener)
    GatewayServer(app, settings.server, settings.limits).run(sockets=[listener])
    if cluster is not None:
        cluster.close()
    leave(0)


def _check_database(url: str) -> None:
    """Before the port opens: whoever is let in must not be the one who finds out."""
    from mm_gateway.storage.postgres import why_not
    from mm_gateway.storage.postgres_server import address

    where = address(url)
    if (fault := why_not(url)) is not None:
        raise ConfigurationError(
            f"storage.url: the database {where} cannot be used: {fault}. Start it, or correct storage.url; "
            "`mm-gateway doctor` looks at it again"
        )


def _connected(settings: Settings, address: str) -> Cluster:
    from mm_gateway.ray_serve.cluster import Cluster

    cluster = Cluster(settings, address)
    cluster.connect()
    return cluster


def _allow_connections(limits: LimitSettings) -> None:
    """Room for those that are answered, as many again to be refused politely, and those that wait: often only 1,024 files may be open."""
    wanted = 2 * limits.max_requests + limits.max_waiting_connections + 1024
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


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


def _banner(settings: Settings, workflows: Sequence[str], listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    model = settings.default_model or next(iter(settings.models))
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]})
    asks_for_keys = settings.asks_for_keys or holds_keys(settings.storage.place(KEYS_FILE))
    authorization = " -H 'Authorization: Bearer YOUR_KEY'" if asks_for_keys else ""
    lines = [
        f"mm_gateway serves {address}/v1",
        f"  models: {', '.join([*settings.models, *workflows])}",
        f"  ask:    curl {address}/v1/chat/completions -H 'Content-Type: application/json'{authorization} -d '{body}'",
        f"  docs:   {address}/schema, README.md",
    ]
    if settings.server.page:
        lines.insert(1, f"  page:   {address}/")
    click.echo("\n".join(lines), err=True)
    if not asks_for_keys and not _is_loopback(host):
        click.echo(f"  WARNING: everybody who reaches {host} can use this server. Set MM_GATEWAY_API_KEYS to ask for keys", err=True)
    sys.stderr.flush()


def _is_loopback(host: str) -> bool:
    return host == "localhost" or ipaddress.ip_address(host).is_loopback
