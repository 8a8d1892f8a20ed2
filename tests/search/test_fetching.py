"""Fetching pages: what is read of real replies on a real socket, what is refused, and that no private address is ever reached."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from mm_gateway.configuration.search_settings import SearchSettings
from mm_gateway.errors import PageError
from mm_gateway.search.documents import Document
from mm_gateway.search.fetching import PageFetcher
from mm_gateway.search.guarded_network import is_public
from tests.support.served import until
from tests.support.web_site import article, dripping, endless, gzip_bomb, redirect, reply, silent, web_site

TEXT = "Deep learning trains networks of many layers on examples, and needs much data and computing time to do so."
CHINESE = "深度学习是机器学习的一个分支，它使用多层神经网络从大量数据中自动学习特征表示。"
SETTINGS = SearchSettings(allow_private_addresses=True, page_timeout_s=30, max_page_bytes=50_000, max_redirects=2)


def text_of(document: Document | PageError) -> str:
    assert isinstance(document, Document), document
    return "\n".join(section.text for section in document.sections)


async def fetch(url: str, settings: SearchSettings = SETTINGS, **changes: Any) -> Document:
    async with PageFetcher(settings, **changes).session() as session:
        return await session.fetch(url)


async def test_takes_the_main_text_and_the_title_without_navigation() -> None:
    async with web_site({"/": reply(article("Learning", TEXT, "It began with a model of a neuron, in 1943, in Chicago."))}) as site:
        document = await fetch(f"{site.address}/")
    assert document.title == "Learning"
    assert TEXT in text_of(document)
    assert "1943" in text_of(document)
    assert "Log in" not in text_of(document)
    assert "cookie" not in site.requests[0][1]


@pytest.mark.parametrize(
    ("charset", "kind"),
    [
        ("gb18030", "text/html; charset=gb2312"),
        ("gb18030", "text/html"),
        ("utf-8", "text/html; charset=iso-8859-1"),
        ("utf-8", "text/html; charset=no-such-charset"),
        ("utf-8", "text/html; charset=base64"),
        ("utf-16", "text/html; charset=utf-8"),
        ("big5", "text/html; charset=big5"),
        ("utf-8-sig", "text/html; charset=gbk"),
    ],
)
async def test_reads_pages_whose_encoding_is_declared_wrongly_or_not_at_all(charset: str, kind: str) -> None:
    chinese = "深度學習使用多層神經網路" * 4 if charset == "big5" else CHINESE
    async with web_site(
        {"/": reply(article("学习" if charset != "big5" else "學習", chinese, chinese, charset=charset), kind=kind)}
    ) as site:
        assert chinese in text_of(await fetch(f"{site.address}/"))


async def test_a_charset_in_the_page_itself_is_believed() -> None:
    page = (
        f"<html><head><meta charset='windows-1251'><title>x</title></head><body><p>{'Глубокое обучение нейросетей. ' * 5}</p></body></html>"
    )
    async with web_site({"/": reply(page.encode("cp1251"), kind="text/html")}) as site:
        assert "Глубокое обучение" in text_of(await fetch(f"{site.address}/"))


async def test_plain_text_and_gzip_are_read() -> None:
    pages = {
        "/plain": reply(TEXT.encode(), kind="text/plain"),
        "/gzip": reply(gzip.compress(article("Zipped", TEXT)), content_encoding="gzip"),
    }
    async with web_site(pages) as site:
        assert text_of(await fetch(f"{site.address}/plain")) == TEXT
        assert TEXT in text_of(await fetch(f"{site.address}/gzip"))


@pytest.mark.parametrize(
    ("page", "says"),
    [
        (endless, "larger than 50000 bytes"),
        (gzip_bomb(200_000_000), "larger than 50000 bytes"),
        (reply(b"\x1f\x8b broken", content_encoding="gzip"), "broken encoding"),
        (reply(b"x", content_encoding="br"), "encoded with br"),
        (reply(b"%PDF", kind="application/pdf"), "of type application/pdf"),
        (reply(b"", status="500 Oops"), "status 500"),
        (reply(b"<html><body></body></html>"), "no text"),
        (reply(b""), "no HTML"),
        (b"this is no HTTP\r\n\r\n", "cannot be fetched"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\ncut off", "cannot be fetched"),
        (redirect("/"), "more than 2 redirects"),
        (redirect("file:///etc/passwd"), "cannot be fetched"),
        (redirect("http://"), "cannot be fetched"),
        (redirect("http://127.0.0.1:9/"), "cannot be fetched"),
    ],
)
async def test_a_page_that_breaks_a_limit_or_the_rules_is_an_error_that_says_so(page, says: str) -> None:
    async with web_site({"/": page}) as site:
        with pytest.raises(PageError, match=says):
            await fetch(f"{site.address}/")


@pytest.mark.parametrize("page", [silent, dripping])
async def test_a_page_that_takes_too_long_is_given_up(page) -> None:
    async with web_site({"/": page}) as site:
        with pytest.raises(PageError, match=r"longer than 0\.3 s"):
            await fetch(f"{site.address}/", SearchSettings(allow_private_addresses=True, page_timeout_s=0.3))


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://example.com/", "gopher://x", "javascript:alert(1)", "", "http://", "http://[::1"]
)
async def test_other_schemes_and_broken_addresses_are_refused(url: str) -> None:
    with pytest.raises(PageError):
        await fetch(url)


async def test_redirects_are_followed_within_their_limit() -> None:
    async with web_site({"/a": redirect("/b"), "/b": redirect("/c"), "/c": reply(article("End", TEXT))}) as site:
        assert (await fetch(f"{site.address}/a")).title == "End"


async def test_so_many_pages_are_fetched_at_a_time() -> None:
    running = most = 0

    async def page(target: str, write) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        await write(reply(article("Page", TEXT)))

    settings = SearchSettings(allow_private_addresses=True, parallel_fetches=2)
    async with web_site({"/": page}) as site, PageFetcher(settings).session() as session:
        await asyncio.gather(*(session.fetch(f"{site.address}/") for _ in range(6)))
    assert most == 2


async def test_cancelling_ends_a_fetch() -> None:
    async with web_site({"/": silent}) as site, PageFetcher(SearchSettings(allow_private_addresses=True)).session() as session:
        task = asyncio.create_task(session.fetch(f"{site.address}/"))
        while not site.requests:  # noqa: ASYNC110 - the site keeps its requests in a list
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait_for(site.dropped.wait(), 5)
        with pytest.raises(asyncio.CancelledError):
            await task


PRIVATE = [
    *("127.0.0.1", "127.8.9.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255"),
    *("224.0.0.1", "239.1.1.1", "192.0.2.1", "198.18.0.1", "240.0.0.1"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "fec0::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:1::1", "no address"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_told_from_public_ones(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "::ffff:8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


class FakeResolver:
    """Answers each look-up with the next of its answers; the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def test_a_name_that_resolves_to_a_private_address_is_not_connected_to() -> None:
    async with web_site({"/": reply(article("Secret", TEXT))}) as site:
        port = site.address.rpartition(":")[2]
        for addresses in (["127.0.0.1"], ["::ffff:127.0.0.1"], ["0.0.0.0"], ["127.0.0.1", "::1"]):
            with pytest.raises(PageError, match=r"internal\.example is not on the public internet"):
                await fetch(f"http://internal.example:{port}/", SearchSettings(), resolve=FakeResolver(addresses))
        assert not site.requests


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "127.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0"])
async def test_every_way_to_write_this_machine_is_refused(host: str) -> None:
    async with web_site({"/": reply(article("Secret", TEXT))}) as site:
        with pytest.raises(PageError):
            await fetch(f"http://{host}:{site.address.rpartition(':')[2]}/", SearchSettings())
        assert not site.requests


async def test_the_checked_address_is_the_one_connected_to_even_if_the_name_changes_its_mind() -> None:
    """DNS rebinding: were the name looked up once more to connect, the second answer would lead inside."""
    async with web_site({"/": reply(article("Secret", TEXT))}) as site:
        resolver = FakeResolver(["203.0.113.1"], ["127.0.0.1"])
        with pytest.raises(PageError):
            url = f"http://rebinding.example:{site.address.rpartition(':')[2]}/"
            await fetch(url, SearchSettings(page_timeout_s=0.2), resolve=resolver)
        assert len(resolver.asked) == 1
        assert not site.requests


async def test_a_redirect_to_a_private_address_is_refused() -> None:
    """The first host is let through by a resolver that knows it as loopback, as a public host would be by the real one."""

    async with web_site({"/": redirect("http://inside.example/admin"), "/admin": reply(article("Secret", TEXT))}) as site:
        asked: list[str] = []

        async def resolver(host: str, port: int) -> Sequence[str]:
            asked.append(host)
            return ["10.0.0.1"] if host == "inside.example" else ["127.0.0.1"]

        with pytest.raises(PageError, match=r"inside\.example is not on the public internet"):
            await fetch(f"{site.address}/", SearchSettings(), resolve=resolver, is_allowed=lambda address: address == "127.0.0.1")
        assert asked == ["127.0.0.1", "inside.example"]
        assert [target for target, _ in site.requests] == ["/"]


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with web_site({"/": reply(article("Direct", TEXT))}) as site:
        assert (await fetch(f"{site.address}/")).title == "Direct"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(b"<html><body><p " + b" ".join(b"a%d=b" % n for n in range(150_000)) + b">" + TEXT.encode(), id="attributes"),
        pytest.param(b"<div>" * 300_000 + TEXT.encode(), id="depth"),
        pytest.param(b"<html><body>" + b"<a href=x><table><b>" * 90_000 + TEXT.encode(), id="unclosed"),
    ],
)
async def test_a_page_made_to_be_slow_to_read_is_given_up_in_time_and_delays_no_other(page: bytes) -> None:
    settings = msgspec.structs.replace(SETTINGS, page_timeout_s=4, max_page_bytes=4_000_000)
    async with web_site({"/slow": reply(page), "/": reply(article("Learning", TEXT))}) as site:
        async with asyncio.timeout(15), PageFetcher(settings).session() as session:
            slow = [asyncio.create_task(session.fetch(f"{site.address}/slow")) for _ in range(2)]
            outcomes = await asyncio.gather(*slow, return_exceptions=True)
            assert all(isinstance(outcome, Document | PageError) for outcome in outcomes), outcomes
        assert TEXT in text_of(await fetch(f"{site.address}/"))


async def test_the_reading_of_a_page_ends_with_the_request_for_it() -> None:
    page = b"<html><body><p " + b" ".join(b"a%d=b" % n for n in range(150_000)) + b">" + TEXT.encode()
    settings = msgspec.structs.replace(SETTINGS, max_page_bytes=4_000_000)
    pages = {"/slow": reply(page), "/": reply(article("Learning", TEXT))}
    async with web_site(pages) as site, PageFetcher(settings).session() as session:
        slow = [asyncio.create_task(session.fetch(f"{site.address}/slow")) for _ in range(4)]
        await until(lambda: len(site.requests) == 4)
        for task in slow:
            task.cancel()
        async with asyncio.timeout(20):
            assert TEXT in text_of(await session.fetch(f"{site.address}/"))
