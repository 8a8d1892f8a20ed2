"""Sources cut to what matters and to what fits; passages; words."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from mm_gateway.search.fitting import Source, fit
from mm_gateway.search.passages import split_passages
from mm_gateway.search.words import query_words, words


async def count_bytes(texts: Sequence[str]) -> list[int]:
    """The most tokens that any tokenizer makes."""
    return [len(text.encode()) for text in texts]


async def count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


FILLER = "\n\n".join(f"Paragraph {number} tells of nothing in particular, and does so at some length." for number in range(400))
NEEDLE = "The harbour of Tallinn freezes in February."


async def test_what_matters_is_found_deep_within_a_long_source() -> None:
    text = f"{FILLER}\n\n{NEEDLE}\n\n{FILLER}"
    (kept,) = await fit("When does the harbour freeze?", [Source("Ports", text)], count_words, room_tokens=150, max_source_tokens=100)
    assert NEEDLE in kept
    assert len(kept.split()) <= 100


async def test_chinese_is_cut_to_what_matters_too() -> None:
    filler = "\n".join("这一段没有说什么特别的事情，只是为了让文章变得很长。" for _ in range(300))
    text = f"{filler}\n塔林的港口在二月结冰。\n{filler}"
    (kept,) = await fit("港口什么时候结冰？", [Source("港口", text)], count_bytes, room_tokens=900, max_source_tokens=900)
    assert "二月结冰" in kept
    assert len(kept.encode()) <= 900


@pytest.mark.parametrize("room", [97, 200, 500, 1500, 5000, 100_000])
@pytest.mark.parametrize("count", [count_bytes, count_words])
async def test_never_more_than_the_room_and_never_more_than_a_source_may_take(room: int, count) -> None:
    sources = [Source(f"Source {number}", f"{FILLER}\n\n{NEEDLE}") for number in range(5)]
    kept = await fit("harbour Tallinn", sources, count, room_tokens=room, max_source_tokens=400)
    whole = [f"[10] {source.title}\n\n\n{text}" for source, text in zip(sources, kept, strict=False)]
    sizes = await count(whole)
    assert sum(sizes) <= room
    assert max(sizes) <= 400
    assert all(kept)
    assert len(kept) == min(5, max(1, room // 96))


async def test_a_source_without_anything_to_the_point_gives_its_beginning_and_parts_keep_their_order() -> None:
    sources = [Source("A", "First words here.\n\n" + FILLER), Source("B", f"Tallinn is old.\n\n{FILLER}\n\n{NEEDLE}")]
    first, second = await fit("harbour Tallinn", sources, count_words, room_tokens=200, max_source_tokens=100)
    assert first.startswith("First words here.")
    assert second.index("Tallinn is old.") < second.index(NEEDLE)


async def test_without_room_or_sources_nothing_is_kept() -> None:
    assert await fit("x", [Source("A", "text")], count_words, room_tokens=0, max_source_tokens=100) == []
    assert await fit("x", [], count_words, room_tokens=500, max_source_tokens=100) == []


def test_passages_are_bounded_and_lose_no_words() -> None:
    draw = random.Random(7)
    for _ in range(200):
        text = "".join(draw.choice(["word ", "长长的中文。", "\n\n", "\n", "End. ", "x" * 70, "🙂"]) for _ in range(draw.randint(0, 60)))
        size = draw.randint(16, 120)
        passages = split_passages(text, size)
        assert all(passage.strip() and len(passage.encode()) <= size for passage in passages)
        assert "".join("".join(passages).split()) == "".join(text.split())


def test_a_long_text_without_any_end_is_cut_in_linear_time() -> None:
    assert len(split_passages("x" * 2_000_000, 1000)) == 2000


def test_passages_end_at_paragraphs_then_at_sentences() -> None:
    assert split_passages("One. Two.\n\nThree. Four.", 14) == ["One. Two.", "Three. Four."]
    assert split_passages("One is. Two is. Three is.", 16) == ["One is. Two is.", "Three is."]
    assert split_passages("一是一。二是二。三是三。", 24) == ["一是一。二是二。", "三是三。"]


def test_words_are_folded_segmented_and_free_of_stop_words_in_queries() -> None:
    assert words("The ＧＰＴ-2 model_name, v1.5") == ["the", "gpt", "2", "model", "name", "v1", "5"]
    assert {"深度", "学习"} <= set(words("什么是深度学习"))
    assert query_words("What is the harbour of Tallinn?") == ["harbour", "tallinn"]
    assert query_words("什么是深度学习？") == ["深度", "学习"]
    assert query_words("Who are they?") == ["who", "are", "they"]
    assert len(query_words(" ".join(map(str, range(1000))))) == 32
