"""The index of local files: over real Markdown, text, HTML and PDF files, in English and Chinese."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

import fpdf
import pytest

from mm_gateway.errors import ConfigurationError, SearchError
from mm_gateway.search import index_update
from mm_gateway.search.index_update import FileOutcome
from mm_gateway.search.local import LocalProvider, documentation_index
from mm_gateway.search.local_index import LocalIndex, UrlOf
from tests.support.web_site import article

GUIDE = """---
layout: page
---
# The Observatory

Opened in 1897 on a hill.

## Visiting hours

The dome is open on Fridays from eight. Bring a coat.

```sh
# this is no heading
make tea
```

## Written in C# ##

The clock is.

## [Telescopes](x.html) & `mirrors`

### The refractor

A lens of forty inches gathers the light.

## Visiting hours

Closed in winter.
"""
CHINESE = """# 天文台

## 开放时间

圆顶每周五晚上八点开放，请带上外套。

## 望远镜

折射望远镜的透镜口径为四十英寸，用来收集星光。深度学习也用于分类星系。
"""


COMETS = (
    "Comets are lumps of ice and dust that grow a tail near the sun, which blows it away.",
    "Their orbits are long and narrow, and planets may bend them at every pass.",
    "Old books took them for signs of war and famine. Nobody knows how many there are.",
)


def write_pdf(path: Path, title: str, *pages: str) -> None:
    pdf = fpdf.FPDF()
    pdf.set_title(title)
    pdf.set_font("helvetica", size=12)
    for text in pages:
        pdf.add_page()
        pdf.multi_cell(0, 8, text)
    path.write_bytes(bytes(pdf.output()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my files"
    (folder / "sub").mkdir(parents=True)
    (folder / "guide.md").write_text(GUIDE)
    (folder / "sub" / "中文.md").write_text(CHINESE)
    (folder / "notes.txt").write_bytes("Der Größe nach: Jupiter, Saturn.\n\nMeteor showers peak in August.".encode("utf-16"))
    (folder / "comets.html").write_bytes(article("Comets", *COMETS))
    write_pdf(folder / "planets.pdf", "Planets", "Mercury is the smallest planet.", "Neptune has the strongest winds.")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.md").write_text("nothing to see")
    return folder


@pytest.fixture
def index(tmp_path: Path) -> LocalIndex:
    return LocalIndex(tmp_path / "data" / "index.sqlite")


def outcomes(index: LocalIndex, *roots: Path) -> list[FileOutcome]:
    return list(index_update.update(index, roots, max_file_bytes=100_000))


def update(index: LocalIndex, *roots: Path) -> dict[str, int]:
    return dict(Counter(outcome.change for outcome in outcomes(index, *roots)))


def found(index: LocalIndex, query: str, base: str | None = "https://docs.example/x/") -> list[tuple[str, str]]:
    return [(result.title, result.url) for result in index.search(query, 5, UrlOf(base))]


def test_finds_passages_of_every_kind_of_file_with_title_and_anchor(index: LocalIndex, folder: Path) -> None:
    assert update(index, folder) == {"added": 5}
    at = "https://docs.example/x"
    assert found(index, "When is the dome open?")[0] == ("The Observatory › Visiting hours", f"{at}/guide.md#visiting-hours")
    assert found(index, "closed winter")[0][1] == f"{at}/guide.md#visiting-hours-1"
    assert found(index, "How large is the lens?")[0] == (
        "The Observatory › Telescopes & mirrors › The refractor",
        f"{at}/guide.md#the-refractor",
    )
    assert found(index, "meteor shower")[0] == ("notes.txt", f"{at}/notes.txt")
    assert found(index, "GROSSE")[0][0] == "notes.txt"
    assert found(index, "comet tails")[0] == ("Comets", f"{at}/comets.html")
    assert found(index, "winds on Neptune")[0] == ("Planets › 2", f"{at}/planets.pdf#page=2")
    assert found(index, "imprint") == []
    assert found(index, "clock")[0] == ("The Observatory › Written in C#", f"{at}/guide.md#written-in-c")
    assert found(index, "nothing to see") == []
    assert found(index, "layout") == []


def test_finds_chinese_words_and_parts_of_long_ones(index: LocalIndex, folder: Path) -> None:
    update(index, folder)
    for query in ("圆顶什么时候开放？", "每周五", "外套"):
        assert found(index, query)[0][0] == "天文台 › 开放时间", query
    for query in ("什么是深度学习？", "望远镜的透镜有多大", "星光", "折射"):
        assert found(index, query)[0][0] == "天文台 › 望远镜", query
    assert found(index, "量子力学") == []
    assert found(index, "星光")[0][1].startswith("https://docs.example/x/sub/%E4%B8%AD%E6%96%87.md#")


def test_addresses_are_files_unless_a_base_is_set(index: LocalIndex, folder: Path) -> None:
    update(index, folder)
    assert found(index, "comets", None)[0][1] == (folder / "comets.html").as_uri()
    assert "my%20files" in found(index, "comets", None)[0][1]


def test_results_bring_text_and_snippet_and_each_section_once(index: LocalIndex, folder: Path) -> None:
    (folder / "long.md").write_text(
        "# Long\n\n" + "\n\n".join(f"Pulsar number {number} spins. " + "It is far. " * 40 for number in range(9))
    )
    update(index, folder)
    results = index.search("pulsar spins", 5, UrlOf())
    assert [result.title for result in results] == ["Long"]
    text = results[0].text or ""
    numbers = [int(part.split()[0]) for part in text.split("Pulsar number ")[1:]]
    assert numbers == sorted(numbers)
    assert len(text) < 8000
    assert len(results[0].snippet) <= 300
    assert results[0].snippet.endswith("…")


@pytest.mark.parametrize(
    "query",
    [
        *('"', "AND", "NOT lens", "lens OR", "title:lens", "lens*", "^lens", "NEAR(lens, 2)", "(lens", "lens) --", "{lens}", "-lens"),
        *("\0lens\n", "lens; DROP TABLE words", "lens " * 5000, "", "？！", "😀", "\ud800lens"),
    ],
)
def test_no_query_breaks_the_search(index: LocalIndex, folder: Path, query: str) -> None:
    update(index, folder)
    titles = [title for title, _ in found(index, query)]
    assert ("The Observatory › Telescopes & mirrors › The refractor" in titles) == ("lens" in query)


def test_passages_with_all_words_come_before_those_with_some(index: LocalIndex, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("red red red red giant")
    (tmp_path / "b.txt").write_text("A long text about many things, in which at last a red and a dwarf are named, among other things.")
    update(index, tmp_path)
    assert [title for title, _ in found(index, "red dwarf")] == ["b.txt", "a.txt"]


def test_an_update_reads_what_is_new_or_changed_and_drops_what_is_gone(index: LocalIndex, folder: Path) -> None:
    update(index, folder)
    assert update(index, folder) == {"unchanged": 5}
    os.utime(folder / "guide.md")  # touched, but the same
    (folder / "notes.txt").write_text("Nebulae glow.")
    (folder / "comets.html").unlink()
    (folder / "new.md").write_text("# New\n\nQuasars shine.")
    assert update(index, folder) == {"unchanged": 3, "updated": 1, "added": 1, "removed": 1}
    assert found(index, "nebulae") and found(index, "quasars")
    assert not found(index, "meteor") and not found(index, "comets")


def test_roots_are_independent_and_may_lie_within_each_other(index: LocalIndex, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Other\n\nAuroras flicker.")
    assert update(index, folder / "sub", tmp_path / "other.md") == {"added": 2}
    assert update(index, folder) == {"added": 4, "unchanged": 1}
    assert index.status().roots == sorted(map(str, (folder, folder / "sub", tmp_path / "other.md")))
    assert found(index, "auroras")
    (tmp_path / "other.md").unlink()
    assert update(index, tmp_path / "other.md") == {"removed": 1}
    assert str(tmp_path / "other.md") not in index.status().roots
    with pytest.raises(ConfigurationError, match="no file or folder"):
        update(index, tmp_path / "other.md")


def test_files_that_cannot_be_read_are_reported_and_the_rest_is_indexed(index: LocalIndex, folder: Path) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 broken")
    write_pdf(folder / "scan.pdf", "Scan", "")
    (folder / "large.txt").write_text("x" * 200_000)
    (folder / "binary.txt").write_bytes(b"\0\1\2" * 100)
    (folder / "empty.html").write_text("")
    failed = {outcome.path.name: outcome.error for outcome in outcomes(index, folder) if outcome.change == "failed"}
    assert set(failed) == {"broken.pdf", "scan.pdf", "large.txt", "binary.txt", "empty.html"}
    assert "max_file_bytes" in failed["large.txt"]
    assert "text recognition" in failed["scan.pdf"]
    assert index.status().documents == 5


def test_a_file_that_becomes_unreadable_drops_out(index: LocalIndex, folder: Path) -> None:
    update(index, folder)
    (folder / "planets.pdf").write_bytes(b"no longer")
    assert [outcome.path.name for outcome in outcomes(index, folder) if outcome.change == "failed"] == ["planets.pdf"]
    assert not found(index, "Neptune")


def test_a_single_file_of_an_unknown_kind_is_an_error_of_that_file(index: LocalIndex, folder: Path) -> None:
    (outcome,) = outcomes(index, folder / "picture.png")
    assert isinstance(outcome, FileOutcome)
    assert ".pdf" in outcome.error


def test_a_running_reader_sees_updates_and_rebuilds_of_another_process(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    provider = LocalProvider(path)

    def titles(query: str) -> list[str]:
        return [result.title for result in asyncio.run(provider.search(query, 3, "en"))]

    # Without an index it answers from the gateway's own documentation.
    assert any("mm_gateway" in title for title in titles("keep_alive"))
    assert titles("comets") == []
    writer = LocalIndex(path)
    update(writer, folder)
    assert titles("comets") == ["Comets"]
    assert titles("keep_alive") == []
    writer.close()
    rebuilt = LocalIndex(path, rebuild=True)
    rebuilt.forget_roots()
    update(rebuilt, folder / "sub")
    assert titles("comets") == []
    assert titles("圆顶")
    asyncio.run(provider.close())


def test_a_file_that_is_no_index_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    path.write_text("this is no database, but long enough to be looked at as one" * 20)
    with pytest.raises(ConfigurationError, match=r"index\.sqlite"):
        LocalIndex(path)
    with pytest.raises(SearchError, match="cannot be searched"):
        asyncio.run(LocalProvider(path).search("x", 1, "en"))


def test_the_own_documentation_answers_questions_about_the_gateway() -> None:
    index = documentation_index()
    for query, expected in [
        ("What does max_cached_models mean?", "max_cached_models"),
        ("which variable holds the API keys?", "MM_GATEWAY_API_KEYS"),
        ("How do I unload a model?", "unload"),
        ("keep_alive 是什么？", "keep_alive"),
        ("How do I add a model?", "Add an entry to config/models.yaml"),
        ("怎么修改端口？", "mm-gateway serve --port 9000"),
    ]:
        results = index.search(query, 5, UrlOf())
        assert any(expected in (result.text or "") for result in results), query
    assert index.search("Who won the cup in 1954?", 5, UrlOf()) == []
