"""`/admin/keys`: keys are listed, and those of the running gateway made, changed and deleted; at once, and only their hashes are kept."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import msgspec
from litestar import delete, get, patch, post
from litestar.datastructures import State
from litestar.params import FromPath
from msgspec import UNSET

from mm_gateway.api.access.keys import Keys, Source
from mm_gateway.api.access.ledger import Ledger
from mm_gateway.api.access.made_keys import MadeKeys
from mm_gateway.api.connection import HTTPRequest
from mm_gateway.api.endpoint import json_of
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.api_key import NAME_FAULT, ApiKey, digest_of, new_key
from mm_gateway.errors import InvalidRequestError, ModelNotFoundError
from mm_gateway.protocol.admin import AdminKey, AdminKeyList, DeletedKey, KeyFields, NewKey, Spent
from mm_gateway.protocol.decoding import decode
from mm_gateway.storage.key_store import MadeKey
from mm_gateway.text import is_name

_decoder = msgspec.json.Decoder(KeyFields)

_Used = dict[str, tuple[Spent, Spent]]


@get("/admin/keys", summary="The keys of clients, and what they have used")
async def list_keys(state: State) -> AdminKeyList:
    keys: Keys = state.client_keys
    made_keys: MadeKeys = state.made_keys
    used = await _used(state)
    sources: tuple[Source, ...] = ("settings", "file")
    configured = [_shown(key, source, used) for source in sources for key in keys.of(source)]
    return AdminKeyList([*configured, *(_shown(made.key, "made", used, made) for made in await made_keys.all())])


@post("/admin/keys", status_code=200, summary="Make a key; it is shown this once")
async def make_key(request: HTTPRequest, state: State) -> NewKey:
    """It opens at once. Once a gateway has keys it asks for them, also where it did not before."""
    fields = await _fields(request, state.catalog)
    secret = new_key()
    made_keys: MadeKeys = state.made_keys
    made = await made_keys.add(_with(fields, ApiKey(digest=digest_of(secret))))
    shown = _shown(made.key, "made", await _used(state), made)
    return NewKey(key=secret, **{name: getattr(shown, name) for name in shown.__struct_fields__ if name != "object"})


@patch("/admin/keys/{key_id:path}", summary="Change a key: its limits, budgets, models, name, expiry, or whether it is disabled")
async def change_key(request: HTTPRequest, state: State, key_id: FromPath[str]) -> AdminKey:
    """What the body leaves out stays as it is. Requests that run go on."""
    fields = await _fields(request, state.catalog)
    made_keys: MadeKeys = state.made_keys
    made = await made_keys.change(_named(key_id), partial(_with, fields))
    return _shown(made.key, "made", await _used(state), made)


@delete("/admin/keys/{key_id:path}", status_code=200, summary="Delete a key; what it used is still told")
async def delete_key(state: State, key_id: FromPath[str]) -> DeletedKey:
    made_keys: MadeKeys = state.made_keys
    return DeletedKey((await made_keys.delete(_named(key_id))).id)


def _named(key_id: str) -> str:
    """Names may hold slashes, so the whole rest of the path is the key's id or name; Litestar gives it with the slash before it."""
    return str(key_id).removeprefix("/")


async def _fields(request: HTTPRequest, catalog: Catalog) -> KeyFields:
    fields = decode(_decoder, await json_of(request))
    if fields.name is not UNSET and not is_name(fields.name):
        raise InvalidRequestError(NAME_FAULT, param="name")
    if fields.models:
        for place, name in enumerate(fields.models):
            try:
                fields.models[place] = catalog.resolve(name).info().id
            except ModelNotFoundError as error:
                raise InvalidRequestError(str(error), param=f"models[{place}]") from None
    elif fields.models is not UNSET and fields.models is not None:
        raise InvalidRequestError("models must name at least one model; null: all", param="models", code="empty_array")
    return fields


def _with(fields: KeyFields, key: ApiKey) -> ApiKey:
    """A key with what a body says."""
    given: dict[str, Any] = {name: value for name in fields.__struct_fields__ if (value := getattr(fields, name)) is not UNSET}
    if "models" in given:
        given["models"] = tuple(given["models"] or ())
    return msgspec.structs.replace(key, **given)


def _shown(key: ApiKey, source: Source, used: _Used, made: MadeKey | None = None) -> AdminKey:
    today, month = used.get(key.principal, (Spent(), Spent()))
    return AdminKey(
        id=made.id if made is not None else None,
        name=key.principal,
        source=source,
        created_at=made.created_at if made is not None else None,
        models=list(key.models) or None,
        requests_per_minute=key.requests_per_minute,
        tokens_per_minute=key.tokens_per_minute,
        tokens_per_day=key.tokens_per_day,
        tokens_per_month=key.tokens_per_month,
        cost_per_day=key.cost_per_day,
        cost_per_month=key.cost_per_month,
        expires_at=key.expires_at,
        disabled=key.disabled,
        used_today=today,
        used_this_month=month,
    )


async def _used(state: State) -> _Used:
    """By the name of a key: today, and this month."""
    ledger: Ledger = state.ledger
    day = time.strftime("%Y-%m-%d", time.gmtime())
    today = {row.key: Spent(row.tokens, row.cost) for row in await ledger.report(["key"], start=day)}
    month = await ledger.report(["key"], start=f"{day[:8]}01")
    return {row.key or "": (today.get(row.key, Spent()), Spent(row.tokens, row.cost)) for row in month}
