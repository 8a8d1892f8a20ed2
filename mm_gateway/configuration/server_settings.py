"""`server:` and `limits:` of `gateway.yaml`: where it listens, who may use it, and how much of it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mm_gateway.configuration.ranges import AtLeastOne, AtLeastOneKiB, NotNegative, Origin, Port, Positive


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`server:` of `gateway.yaml`."""

    host: Annotated[str, Meta(description="Address to listen on; 0.0.0.0 or :: for all of this machine's.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Port to listen on; 0: any free port.")] = 8000
    api_keys: Annotated[
        tuple[str, ...],
        Meta(description="Keys that clients may use, or `sha256:HEX` of them; best given as MM_GATEWAY_API_KEYS. No key: open to all."),
    ] = ()
    api_keys_file: Annotated[
        str | None,
        Meta(description="A file of keys with names and limits of their own; a path from the folder of gateway.yaml."),
    ] = None
    admin_keys: Annotated[
        tuple[str, ...], Meta(description="Keys for `/admin`, best given as MM_GATEWAY_ADMIN_KEYS; none: it is off.")
    ] = ()
    metrics_key: Annotated[
        str | None,
        Meta(
            description="A key for `/metrics`, or `sha256:HEX` of it; best given as MM_GATEWAY_METRICS_KEY. Admin keys open it too. null: "
            "admin keys alone open it where clients need keys, and everybody may see it where they do not."
        ),
    ] = None
    cors_origins: Annotated[
        tuple[Origin, ...],
        Meta(description="Origins whose web pages may call from a browser, such as `https://example.org`; `*`: all; none: CORS is off."),
    ] = ()
    page: Annotated[
        bool, Meta(description="Whether `/` is the page for people; what it shows it asks of the API, with the keys that its reader has.")
    ] = True
    max_body_bytes: Annotated[AtLeastOneKiB, Meta(description="Largest body of a request; beyond it: 413.")] = 16 * 2**20
    unknown_fields: Annotated[
        Literal["refuse", "ignore"],
        Meta(description="Unknown fields of a body: a 400, or left out and named in `x-mm-gateway-ignored`. Remote models get them."),
    ] = "refuse"
    early_commit_s: Annotated[
        Positive, Meta(description="A stream whose first token takes longer is answered with 200 and heartbeats from then on.")
    ] = 5.0
    heartbeat_s: Annotated[Positive, Meta(description="Interval of heartbeat comments in a stream that waits.")] = 10.0
    head_timeout_s: Annotated[
        Positive, Meta(description="Seconds for the headers of a request, from the opening of its connection on; beyond it: 408.")
    ] = 20.0
    body_timeout_s: Annotated[
        Positive, Meta(description="Seconds for the body of a request, and one more for each 4 KiB that has come; beyond it: 408.")
    ] = 30.0
    keep_alive_timeout_s: Annotated[Positive, Meta(description="Seconds for which a connection waits for another request.")] = 15.0
    write_timeout_s: Annotated[
        Positive, Meta(description="Seconds in which a client that is 64 KiB behind must catch up, or its connection is closed.")
    ] = 120.0
    reload_interval_s: Annotated[
        NotNegative,
        Meta(
            description="Seconds between looks at models.yaml and the key file, whose changes take effect in the running gateway; "
            "0: only SIGHUP and `POST /admin/reload` read them again."
        ),
    ] = 1.0
    shutdown_grace_s: Annotated[NotNegative, Meta(description="Seconds that running requests get to end after SIGTERM.")] = 10.0
    request_log: Annotated[
        Literal["off", "text", "json"],
        Meta(description="One line a request on stdout, for people or for machines: id, key, model, tokens, times; never contents."),
    ] = "text"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="What is logged, from this level up.")] = "info"


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`limits:` of `gateway.yaml`: what clients may use, and what the gateway takes on."""

    requests_per_minute: Annotated[
        AtLeastOne | None,
        Meta(
            description="Requests a minute of each key that has no limit of its own; without keys, of all clients together. null: no limit."
        ),
    ] = None
    tokens_per_minute: Annotated[AtLeastOne | None, Meta(description="Likewise, tokens of prompts and replies.")] = None
    max_requests: Annotated[AtLeastOne, Meta(description="Requests being answered at a time, streams included; beyond it: 429.")] = 2048
    max_queued_requests: Annotated[
        AtLeastOne, Meta(description="Of these, requests that wait for their first token, over all models; beyond it: 429.")
    ] = 1024
    max_background_responses: Annotated[
        AtLeastOne, Meta(description="Responses of `background: true` that wait or run at a time; beyond it: 429.")
    ] = 64
    max_waiting_connections: Annotated[
        AtLeastOne,
        Meta(description="Connections without a whole request; beyond it the oldest of the address with most of them is closed."),
    ] = 4096
    max_held_bytes: Annotated[
        AtLeastOneKiB,
        Meta(description="Bytes of all requests that are not answered yet; beyond it the largest that is still arriving gets a 429."),
    ] = 512 * 2**20
