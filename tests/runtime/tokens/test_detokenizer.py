"""Text comes out whole, at once where it is certain, and as the tokenizer itself would decode it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mm_gateway.runtime.tokens.detokenizer import Detokenizer
from mm_gateway.runtime.tokens.token_text import TokenText
from tests.support import checkpoints
from tests.support.checkpoints import token_id

TOKENIZER = checkpoints.make_tokenizer(["<|endoftext|>"], eos_token="<|endoftext|>")
TEXT = TokenText(TOKENIZER)


def stream(ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(TEXT.decode)
    return [*[detokenizer.add(token) for token in ids], detokenizer.flush()]


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_pieces_of_any_text_join_to_it_and_split_no_character(text: str) -> None:
    pieces = stream(TOKENIZER.encode(text))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_ids_give_what_the_tokenizer_decodes(ids: list[int]) -> None:
    assert "".join(stream(ids)) == TOKENIZER.decode(ids, skip_special_tokens=True)


def test_text_before_an_unfinished_character_is_not_held_back() -> None:
    first, *rest = "好".encode()
    ids = [token_id(TOKENIZER, t) for t in TOKENIZER.tokenize("a")]
    detokenizer = Detokenizer(TEXT.decode)
    assert detokenizer.add(ids[0]) == "a"
    by_byte = {TEXT.token_bytes(id): id for id in range(len(TOKENIZER))}
    assert detokenizer.add(by_byte[bytes([first])]) == ""
    assert detokenizer.add(by_byte[bytes([rest[0]])]) == ""
    assert detokenizer.add(by_byte[bytes([rest[1]])]) == "好"


def test_the_cost_of_a_token_does_not_grow_with_the_text() -> None:
    sizes: list[int] = []

    def decode(ids) -> str:
        sizes.append(len(ids))
        return TEXT.decode(ids)

    detokenizer = Detokenizer(decode)
    for token in TOKENIZER.encode("hello there, " * 200):
        detokenizer.add(token)
    assert max(sizes) < 20


def test_token_bytes_join_to_the_text() -> None:
    text = "Hello, 世界! naïve 🙂"
    assert b"".join(TEXT.token_bytes(token) for token in TOKENIZER.encode(text)).decode() == text
