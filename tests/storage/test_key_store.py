"""Keys in a store: names are one key's, changes are whole, and others see them."""

from __future__ import annotations

import msgspec
import pytest

from mm_gateway.configuration.api_key import ApiKey, digest_of
from mm_gateway.errors import InvalidRequestError, NotStoredError
from mm_gateway.storage.database import Place
from mm_gateway.storage.key_store import KeyStore, holds_keys


def test_keys_are_made_changed_and_deleted(place: Place) -> None:
    assert not holds_keys(place)
    store, other = KeyStore(place), KeyStore(place)
    alice = store.add(ApiKey(digest=digest_of("a"), name="alice", tokens_per_day=5))
    nameless = store.add(ApiKey(digest=digest_of("b")))
    assert nameless.key.name == nameless.id
    assert other.all() == (alice, nameless) and holds_keys(place)
    changed = other.change("alice", lambda key: msgspec.structs.replace(key, name="bob"))
    assert store.all()[0] == changed and changed.key.tokens_per_day == 5 and changed.created_at == alice.created_at
    assert store.delete(alice.id) == changed
    assert other.all() == (nameless,)
    for missing in ("alice", "\0", "\udcff", "x" * 1000):
        with pytest.raises(NotStoredError):
            store.delete(missing)
    store.close()
    other.close()


def test_a_name_is_one_keys(place: Place) -> None:
    store = KeyStore(place)
    first, second = (store.add(ApiKey(digest=digest_of(name), name=name)) for name in ("one", "two"))
    with pytest.raises(InvalidRequestError, match="'one' already names another key"):
        store.add(ApiKey(digest=digest_of("x"), name="one"))
    with pytest.raises(InvalidRequestError, match="'one' already names another key"):
        store.change("two", lambda key: msgspec.structs.replace(key, name="one"))
    store.change("two", lambda key: msgspec.structs.replace(key, disabled=True))
    assert [(made.id, made.key.disabled) for made in store.all()] == [(first.id, False), (second.id, True)]
    store.close()


def test_whoever_looks_sees_that_somebody_else_has_written(place: Place) -> None:
    store, other = KeyStore(place), KeyStore(place)
    before = other.version()
    assert other.version() == before
    made = store.add(ApiKey(digest=digest_of("a"), name="a"))
    after = other.version()
    assert after != before and other.version() == after
    store.delete(made.id)
    assert other.version() not in (before, after)
    store.close()
    other.close()
