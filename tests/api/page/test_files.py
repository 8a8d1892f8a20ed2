"""The files of the page as any client gets them: types, headers, what is not there, and what no file of it may hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.page.files import HEADERS, STATIC
from tests.support.scripted_backend import ScriptedBackend, app_over

FILES = sorted(path.name for path in STATIC.iterdir())
SOURCES = {name: (STATIC / name).read_text(encoding="utf-8") for name in FILES}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def client(**server: Any) -> AsyncTestClient:
    return AsyncTestClient(app_over(ScriptedBackend([]), **server))


async def test_every_file_is_open_to_all_with_its_type_and_strict_headers() -> None:
    async with client(api_keys=("secret",)) as http:
        for path in ("/", *(f"/page/{name}" for name in FILES)):
            reply = await http.get(path)
            head = await http.head(path)
            again = await http.get(path, headers={"if-none-match": reply.headers["etag"]})
            name = path.rpartition("/")[2] or "index.html"
            assert (reply.status_code, reply.text) == (200, SOURCES[name])
            assert reply.headers["content-type"] == TYPES[Path(name).suffix]
            assert HEADERS.items() <= dict(reply.headers).items()
            assert (head.status_code, head.content, again.status_code, again.content) == (200, b"", 304, b"")


async def test_the_policy_lets_nothing_in_from_elsewhere() -> None:
    policy = HEADERS["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert {rules[f"{kind}-src"] for kind in ("script", "style", "connect", "img")} == {"'self'"}
    assert "unsafe" not in policy and "*" not in policy


async def test_there_is_nothing_else() -> None:
    async with client() as http:
        for name in ("nothing.js", "", "__init__.py", "../files.py", "..%2ffiles.py", "%2e%2e/files.py", "..\\files.py"):
            reply = await http.get(f"/page/{name}")
            assert reply.status_code == 404 and reply.json()["error"]["type"] == "invalid_request_error", name


async def test_the_page_can_be_turned_off() -> None:
    async with client(page=False) as http:
        reply = await http.get("/")
        assert (reply.status_code, reply.content) == (200, b"")
        assert (await http.get("/page/main.js")).status_code == 404


async def test_a_gateway_that_drains_can_be_watched_though_nobody_is_there_for_clients() -> None:
    app = app_over(ScriptedBackend([]))
    app.state.draining = True
    async with AsyncTestClient(app) as http:
        assert (await http.get("/")).text == SOURCES["index.html"]
        assert (await http.head("/")).status_code == 503


async def test_the_description_of_the_api_has_such_headers_too() -> None:
    async with client() as http:
        reply = await http.get("/schema")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", FILES)
def test_no_file_asks_another_server_or_makes_markup_from_text(name: str) -> None:
    addresses = set(re.findall(r"https?://[\w.]+", SOURCES[name])) - {"http://www.w3.org"}
    assert not addresses
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\sstyle=|\son\w+=\"", SOURCES[name])


def test_every_import_and_every_address_is_a_file() -> None:
    for source in SOURCES.values():
        assert set(re.findall(r"from \"\./([\w.]+)\"", source)) | set(re.findall(r"\"/page/([\w.]+)\"", source)) <= set(FILES)


def test_every_word_is_there_in_both_languages() -> None:
    english, chinese = (
        set(re.findall(r"[{,]\s*\"?([\w,-]+)\"?: \"", part)) for part in re.split(r"^  zh: ", SOURCES["words.js"], flags=re.M)
    )
    assert english == chinese and len(english) > 100
    scripts = "\n".join(source for name, source in SOURCES.items() if name.endswith(".js") and name != "words.js")
    used = set(re.findall(r"\bt\(\"([\w-]+)\"\)|\bt: \"([\w-]+)\"|\"t-[\w-]+\": \"([\w-]+)\"", scripts))
    assert {next(filter(None, found)) for found in used} <= english
