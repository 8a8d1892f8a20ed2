"""What a running gateway has in memory, asked over HTTP; `mm-gateway ps`."""

from __future__ import annotations

import click
import httpx
import msgspec

from mm_gateway.cli.hub.table import show_table, since
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import Settings
from mm_gateway.errors import UpstreamError
from mm_gateway.hub.download import size_in_words
from mm_gateway.protocol import ErrorReply, ModelCard, ModelList

TIMEOUT_S = 10.0


def running_models(settings: Settings, url: str | None, key: str | None) -> list[ModelCard]:
    """The models that a gateway serves, as they are now.

    Args:
        url: its address; None: the one that the settings name. key: one of its clients' keys, where it asks for one.

    Raises:
        UpstreamError: nobody answers there (code `unreachable`), or not as a gateway does.
    """
    address = (url or _address(settings.server)).rstrip("/").removesuffix("/v1")
    try:
        reply = httpx.get(
            f"{address}/v1/models", headers={"authorization": f"Bearer {key}"} if key else {}, timeout=TIMEOUT_S, trust_env=False
        )
    except httpx.TransportError as error:
        raise UpstreamError(
            f"No gateway answers at {address} ({error}). Start one with mm-gateway serve, or name its address with --url",
            code="unreachable",
        ) from error
    if reply.status_code == 401:
        raise UpstreamError(f"The gateway at {address} asks for a key. Set MM_GATEWAY_KEY, or give --key", status=401)
    try:
        if reply.status_code != 200:
            message = msgspec.json.decode(reply.content, type=ErrorReply).error.message
            raise UpstreamError(f"The gateway at {address} answered {reply.status_code}: {message}", status=reply.status_code)
        cards = msgspec.json.decode(reply.content, type=ModelList).data
    except msgspec.MsgspecError as error:
        raise UpstreamError(f"What answers at {address} is no mm_gateway ({reply.status_code}: {reply.text[:100]!r})") from error
    aliases = {alias for card in cards for alias in card.aliases}
    return [card for card in cards if card.id not in aliases]  # which are listed as models are


def show_running(settings: Settings, url: str | None, key: str | None) -> None:
    """Print the models that are in memory, on their way into it, or busy with leaving.

    Raises:
        UpstreamError: as `running_models`.
    """
    cards = running_models(settings, url, key)
    here = [card for card in cards if card.backend == "local" and card.state != "cold"]
    if not here:
        click.echo("No model is in memory. One is loaded when a request asks for it")
        return
    show_table(("NAME", "STATE", "MEMORY", "DEVICE", "REQUESTS", "LAST USED"), [_row(card) for card in here])


def in_words(card: ModelCard) -> str:
    """State, memory and device in one line."""
    _, state, memory, device, *_ = _row(card)
    return ", ".join(word for word in (state, memory, device) if word != "-")


def _row(card: ModelCard) -> tuple[str, ...]:
    details = card.details
    requests = details.get("requests", {})
    waiting = f", {requests['waiting']} waiting" if requests.get("waiting") else ""
    return (
        card.id,
        f"{card.state}{', pinned' if details.get('pinned') else ''}{_progress(card)}",
        size_in_words(details["footprint_bytes"]) if "footprint_bytes" in details else "-",
        str(details.get("device", "-")),
        f"{requests.get('running', 0)} running{waiting}",
        since(details["last_used"]) if "last_used" in details else "-",
    )


def _progress(card: ModelCard) -> str:
    fraction = card.details.get("fraction")
    return f" {fraction:.0%}" if card.state == "loading" and fraction is not None else ""


def _address(server: ServerSettings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}"
