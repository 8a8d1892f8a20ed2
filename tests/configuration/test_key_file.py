"""The file of keys: both of its forms, and mistakes that are named without showing a key."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mm_gateway.configuration.api_key import ApiKey, digest_of, hashed
from mm_gateway.configuration.key_file import read_key_file
from mm_gateway.configuration.loader import load_settings
from mm_gateway.configuration.settings import Settings
from mm_gateway.errors import ConfigurationError


def load(folder: Path, keys: str) -> Settings:
    (folder / "models.yaml").write_text("models: {m: {model_name: m, aliases: [also-m]}, n: {model_name: n}}")
    (folder / "gateway.yaml").write_text("server: {api_keys_file: keys.txt}")
    (folder / "keys.txt").write_text(keys)
    return load_settings(folder / "models.yaml", folder / "gateway.yaml", {})


def test_lines_of_keys_and_names(tmp_path: Path) -> None:
    settings = load(tmp_path, f"# clients\nsecret-one alice\n\n{hashed('secret-two')} bob of accounting # since May\nsecret#three\n")
    assert settings.keys == (
        ApiKey(digest=digest_of("secret-one"), name="alice"),
        ApiKey(digest=digest_of("secret-two"), name="bob of accounting"),
        ApiKey(digest=digest_of("secret#three")),
    )
    assert settings.asks_for_keys


def test_a_list_of_entries_with_limits(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        f"- secret-one\n- key: {hashed('secret-two')}\n  name: bob\n"
        "  requests_per_minute: 60\n  tokens_per_minute: 1000\n  models: [also-m, mm-orch/search-qa]\n",
    )
    assert settings.keys == (
        ApiKey(digest=digest_of("secret-one")),
        ApiKey(
            digest=digest_of("secret-two"), name="bob", requests_per_minute=60, tokens_per_minute=1000, models=("m", "mm-orch/search-qa")
        ),
    )


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("", "there is no key in it"),
        ("# none yet\n", "there is no key in it"),
        ("- secret-one\n- {key: secret-one, name: b}", "entry 2: the key is in the file twice"),
        ("secret-one a\nsecret-two a", "entry 2: name: 'a' already names another key"),
        ("sha256:secret-one", "entry 1: sha256: must be followed by 64 hexadecimal digits"),
        ("- {key: secret-one, requests_per_minute: 0}", "entry 1: requests_per_minute: got 0, allowed is at least 1, or null"),
        ("- {key: secret-one, tokens_per_minute: many}", "entry 1: Expected `int | null`, got `str` - at `$.tokens_per_minute`"),
        ("- {key: secret-one, limit: 3}", "entry 1: Object contains unknown field `limit`. Allowed are key, name, requests_per_minute"),
        ("- {name: secret-one}", "entry 1: Object missing required field `key`"),
        ("- {key: secret-one, models: [o]}", "entry 1: models: 'o' is not among the models: m, also-m, n"),
        ("- [secret-one", "is no valid YAML, see line"),
        ("- {key: secret-one, expires: 2027-02-30}", "is no valid YAML, see line 1"),
        ('- {key: secret-one, name: "a\\nb"}', "entry 1: name: 'a\\nb': a name must be printable"),
        ('- {key: secret-one, name: "\\ud800"}', "a name must be printable"),
        ("- {key: secret-one, expires: '9999-12-31T23:59-10:00'}", "is later than the year 9999"),
        ("- 12345", "entry 1: Expected `object`, got `int`"),
    ],
)
def test_a_mistake_is_named_and_no_key_is_shown(tmp_path: Path, keys: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, keys)
    assert f"{tmp_path / 'keys.txt'}" in str(caught.value)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    load(tmp_path, "secret-one")
    (tmp_path / "keys.txt").unlink()
    with pytest.raises(ConfigurationError, match=r"api_keys_file: .*keys\.txt cannot be read"):
        load_settings(tmp_path / "models.yaml", tmp_path / "gateway.yaml", {})


@pytest.mark.parametrize(
    ("gateway", "says"),
    [
        ("server: {cors_origins: [good.example]}", "cors_origins: got ['good.example'], allowed is *, or origins such as https://"),
        ("limits: {requests_per_minute: 0}", "limits: requests_per_minute: got 0, allowed is at least 1, or null"),
        ("limits: {max_requests: 0}", "limits: max_requests: got 0, allowed is at least 1"),
        ("server: {api_keys: [two words]}", "server: api_keys: a key must be a text without spaces"),
    ],
)
def test_wrong_limits_and_origins_are_named(tmp_path: Path, gateway: str, says: str) -> None:
    load(tmp_path, "secret-one")
    (tmp_path / "gateway.yaml").write_text(gateway)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(tmp_path / "models.yaml", tmp_path / "gateway.yaml", {})
    assert says in str(caught.value)


def test_budgets_and_an_end(tmp_path: Path) -> None:
    (key, other) = load(
        tmp_path,
        "- {key: one, tokens_per_day: 5, tokens_per_month: 50, cost_per_day: 0.5, cost_per_month: 20, expires: 2027-01-31}\n"
        "- {key: two, expires: '2027-01-31T12:00+01:00', disabled: true}",
    ).keys
    assert (key.tokens_per_day, key.tokens_per_month, key.cost_per_day, key.cost_per_month) == (5, 50, 0.5, 20.0)
    assert (key.expires_at, other.expires_at, other.disabled) == (1801353600.0, 1801353600.0 + 11 * 3600, True)
    assert key.has_budget and not other.has_budget


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("expires: soon", "'soon' is no time: give a day such as 2027-01-31"),
        ("tokens_per_day: 0", "tokens_per_day: got 0, allowed is at least 1, or null"),
        ("cost_per_month: .inf", "cost_per_month: got inf, allowed is greater than 0, or null"),
    ],
)
def test_budgets_and_ends_that_are_none(tmp_path: Path, entry: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)) as caught:
        load(tmp_path, f"- {{key: secret-one, {entry}}}")
    assert "secret-one" not in str(caught.value)


def test_a_pipe_is_no_key_file_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "keys")
    with pytest.raises(ConfigurationError, match=r"keys is no file; a folder, a pipe or a device cannot hold keys"):
        read_key_file(tmp_path / "keys", {})
