"""A PostgreSQL server that is shared: made ready by many at once, lost and back without a restart, and never told with its password."""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from mm_gateway.errors import ConfigurationError, StorageError
from mm_gateway.storage import postgres_server as module
from mm_gateway.storage.postgres import PostgresDatabase, why_not
from mm_gateway.storage.postgres_server import address
from mm_gateway.storage.record_store import RecordStore
from tests.support.postgres import PostgresServer


@contextmanager
def stopped(server: PostgresServer) -> Iterator[None]:
    server.stop(signal.SIGQUIT)
    try:
        yield
    finally:
        server.start()


def test_many_gateways_make_the_tables_at_once(database_url: str) -> None:
    urls = [f"{database_url}-{number}" for number in range(6)]  # connections of their own, as processes have
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(lambda url: RecordStore(url, "x", max_records=10), urls))
    stores[0].put("a", b"1")
    assert all(store.get("a") == b"1" for store in stores)
    for store in stores:
        store.close()


def test_a_server_that_went_away_and_came_back_is_used_again(
    postgres: PostgresServer, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    store = RecordStore(database_url, "x", max_records=10)
    store.put("a", b"1")
    with caplog.at_level(logging.WARNING), stopped(postgres):
        for _ in range(3):
            with pytest.raises(StorageError, match="the database cannot be used now") as caught:
                store.get("a")
            assert caught.value.retry_after_s > 0 and "127.0.0.1" not in str(caught.value)
            time.sleep(0.06)
        assert "Connection refused" in (why_not(database_url) or "")
    assert caplog.text.count("Connection refused") <= 2  # not once a call
    time.sleep(0.06)
    assert store.get("a") == b"1"
    assert "the database is back" in caplog.text and "secret-word" not in caplog.text
    store.close()


def test_a_server_that_restarts_between_two_calls_is_not_noticed(postgres: PostgresServer, database_url: str) -> None:
    store = RecordStore(database_url, "x", max_records=10)
    store.put("a", b"1")
    with stopped(postgres):
        pass
    assert store.get("a") == b"1"
    store.close()


def test_a_database_that_was_made_anew_is_made_ready_again(database_url: str) -> None:
    store = RecordStore(database_url, "x", max_records=10)
    with psycopg.connect(database_url, autocommit=True) as somebody:
        somebody.execute("DROP SCHEMA mm_gateway CASCADE")
    with pytest.raises(StorageError):
        store.get("a")
    store.put("a", b"1")
    assert store.get("a") == b"1"
    store.close()


def test_a_statement_that_hangs_ends_in_time(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.1)
    store = RecordStore(database_url, "x", max_records=10)
    store.put("a", b"1")
    with psycopg.connect(database_url) as somebody:
        somebody.execute("LOCK TABLE mm_gateway.records")
        with pytest.raises(StorageError, match="busy"):
            store.put("a", b"2")
    store.put("a", b"3")
    assert store.get("a") == b"3"
    store.close()


def test_a_server_that_hangs_is_waited_for_within_a_bound(
    postgres: PostgresServer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANGS_S", 0.3)
    monkeypatch.setattr(module, "WATCH_S", 0.1)
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    store = RecordStore(database_url, "x", max_records=10)
    store.put("a", b"1")
    with psycopg.connect(database_url) as somebody:
        row = somebody.execute(
            "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name = current_setting('application_name')"
        ).fetchone()
    assert row is not None
    os.kill(row[0], signal.SIGSTOP)
    try:
        with pytest.raises(StorageError, match="the database cannot be used now"):
            store.get("a")
    finally:
        os.kill(row[0], signal.SIGCONT)
    assert store.get("a") == b"1"
    store.close()


def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    PostgresDatabase(database_url).close()
    with psycopg.connect(database_url, autocommit=True) as somebody:
        somebody.execute("UPDATE mm_gateway.schema_version SET version = 99")
    with pytest.raises(ConfigurationError, match="of version 99, and this gateway knows 1: a newer one has changed them"):
        PostgresDatabase(database_url)


def test_a_user_who_may_make_nothing_is_told_what_to_do(postgres: PostgresServer, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS guest")
        owner.execute("CREATE ROLE guest LOGIN PASSWORD 'x'")
    guest = database_url.replace("tester:secret-word", "guest:x")
    with pytest.raises(ConfigurationError, match="CREATE SCHEMA mm_gateway AUTHORIZATION"):
        PostgresDatabase(guest)


def test_a_user_who_may_read_alone_is_not_ready(database_url: str) -> None:
    PostgresDatabase(database_url).close()
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("DROP OWNED BY reader" if owner.execute("SELECT FROM pg_roles WHERE rolname = 'reader'").rowcount else "SELECT 1")
        owner.execute("DROP ROLE IF EXISTS reader")
        owner.execute("CREATE ROLE reader LOGIN PASSWORD 'x'")
        reader = database_url.replace("tester:secret-word", "reader:x")
        assert "permission denied for schema mm_gateway" in (why_not(reader) or "")
        owner.execute("GRANT USAGE ON SCHEMA mm_gateway TO reader")
        owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA mm_gateway TO reader")
        owner.execute("GRANT INSERT, UPDATE, DELETE ON mm_gateway.keys, mm_gateway.usage TO reader")
        assert "may not write to buckets, records, reservations, secrets, versions" in (why_not(reader) or "")
        owner.execute("GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA mm_gateway TO reader")
        assert why_not(reader) is None


def test_a_server_that_takes_no_writes_is_not_ready(database_url: str) -> None:
    database = PostgresDatabase(database_url)
    database.check()
    database.close()
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("ALTER ROLE tester SET default_transaction_read_only = on")
    try:
        database = PostgresDatabase(f"{database_url}-again")
        with pytest.raises(StorageError, match="takes no writes now"):
            database.check()
        database.close()
    finally:
        with psycopg.connect(f"{database_url}&options=-cdefault_transaction_read_only%3Doff", autocommit=True) as owner:
            owner.execute("ALTER ROLE tester RESET default_transaction_read_only")


@pytest.mark.parametrize(
    "url", ["postgresql://u:secret-word@h:port@x/d", "postgresql://u:pass@secret-word@h/d", "postgresql://h/d?secret-word=1"]
)
def test_what_is_no_address_is_said_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is no address of a database") as caught:
        PostgresDatabase(url)
    assert "secret" not in str(caught.value) and caught.value.__cause__ is None
    assert "secret" not in (why_not(url) or "secret")
    with pytest.raises(ConfigurationError, match="is no address of a database") as caught:
        address(url)
    assert "secret" not in str(caught.value)


def test_an_address_is_shown_without_its_password(database_url: str) -> None:
    assert re.fullmatch(r"127.0.0.1:\d+/postgres", address(database_url))


def test_the_clock_is_the_servers(database_url: str) -> None:
    database = PostgresDatabase(database_url)
    with database.connected() as connection:
        (now,) = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert abs(database.clock() - now) < 1
    database.close()
