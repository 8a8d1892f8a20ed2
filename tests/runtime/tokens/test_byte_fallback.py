"""Characters that are not in a SentencePiece vocabulary are written as byte tokens, and come out whole."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from mm_gateway.core import ChoiceFinished, GenerationConfig, TextDelta
from mm_gateway.runtime.engine.requests.ends import Ends
from mm_gateway.runtime.engine.requests.sequence_text import SequenceText
from mm_gateway.runtime.sampling.token_scores import TokenScores
from mm_gateway.runtime.scheduling.sequence import Sequence
from mm_gateway.runtime.tokens.detokenizer import Detokenizer
from mm_gateway.runtime.tokens.token_text import TokenText
from mm_gateway.stop_strings import StopStrings
from tests.support import checkpoints
from tests.support.byte_fallback import make_byte_fallback_tokenizer, one_of_each_block

FALLBACK = make_byte_fallback_tokenizer()
BYTE_LEVEL = checkpoints.make_tokenizer(["<|endoftext|>"], eos_token="<|endoftext|>")
EMOJI = ["🇩🇪", "👩‍👩‍👧‍👦", "🏴‍☠️", "👍🏽", "❤️", "e\u0301\u0323", "ก็", "क्षि", "日本語", "한국어", "\u200d", "\u2028", "a🇩🇪b", "🙂 🙃"]


def _word_piece() -> PreTrainedTokenizerFast:
    words = ["[UNK]", "[SEP]", "hello", "##ing", "##s", ".", ",", "don", "'", "t", "world", "##ö", "n't"]
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", sep_token="[SEP]")


def stream(text: TokenText, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(text.decode)
    return [*["" if text.is_silent(token) else detokenizer.add(token) for token in ids], detokenizer.flush()]


def encoded(text: str) -> list[int]:
    return FALLBACK.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("text", [*EMOJI, *map("".join, itertools.permutations("é好🙂ก", 2))])
def test_neighbours_outside_the_vocabulary_are_whole_streamed_and_at_once(text: str) -> None:
    ids = encoded(text)
    assert TokenText(FALLBACK).decode(ids) == text
    pieces = stream(TokenText(FALLBACK), ids)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert b"".join(map(TokenText(FALLBACK).token_bytes, ids)).decode().removeprefix(" ") == text


def test_every_block_of_unicode_is_whole_in_any_neighbourhood() -> None:
    text = TokenText(FALLBACK)
    characters = one_of_each_block()
    assert len(characters) > 5000
    ids = encoded("".join(characters))
    assert text.decode(ids) == "".join(characters) == "".join(stream(text, ids))
    for pair in itertools.pairwise(characters[::7]):
        assert text.decode(encoded("".join(pair))) == "".join(pair)


def test_a_character_goes_out_with_its_last_byte() -> None:
    pieces = stream(TokenText(FALLBACK), encoded("🇩🇪"))
    assert [piece for piece in pieces if piece] == ["🇩", "🇪"]
    assert pieces[4] == "🇩"  # the first token is the space that a text begins with


def test_what_is_cut_off_within_a_character_costs_that_character_alone() -> None:
    assert TokenText(FALLBACK).decode(encoded("好🇩🇪")[:-1]) == "好🇩" + "\ufffd" * 3


@given(st.lists(st.integers(0, 255).map(lambda byte: byte + 5) | st.integers(0, len(FALLBACK) + 4), max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_ids_stream_to_what_they_decode_to(ids: list[int]) -> None:
    text = TokenText(FALLBACK)
    assert "".join(stream(text, ids)) == text.decode(ids)
    plain = FALLBACK.decode(ids, skip_special_tokens=True)
    if "\ufffd" not in plain:  # tokenizers gives up whole runs of bytes where one is no character
        assert text.decode(ids) == plain


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, _word_piece()], ids=["byte level", "word piece"])
def test_other_tokenizers_stream_as_they_decode(tokenizer: PreTrainedTokenizerFast) -> None:
    text = TokenText(tokenizer)

    @given(st.lists(st.integers(0, len(tokenizer) + 4), max_size=40))
    @settings(max_examples=200, deadline=None)
    def compare(ids: list[int]) -> None:
        known = [id for id in ids if id < len(tokenizer)]
        assert "".join(stream(text, ids)) == text.decode(ids) == tokenizer.decode(known, skip_special_tokens=True)

    compare()


def test_tokens_without_text_between_words_do_not_cost_the_space() -> None:
    ids = [*encoded("hello"), *[3] * 12, *encoded("a")]
    assert "".join(stream(TokenText(FALLBACK), ids)) == TokenText(FALLBACK).decode(ids) == "hello a"


def choice(output: str, *, stop: tuple[str, ...] = ()) -> tuple[str, list[TextDelta], str | None]:
    """The text of a sequence that samples `output`, its events, and why it ended."""
    seq = Sequence(0, 0, [1, *encoded("hello")], GenerationConfig(stop=stop, logprobs=0), max_tokens=1000, seed=0)
    text = SequenceText(0, seq, TokenText(FALLBACK), Ends(frozenset([2]), stop), lambda: StopStrings(stop))
    deltas: list[TextDelta] = []
    for token in [*encoded(output)[1:], 2]:
        seq.tokens.append(token)
        events, ended = text.add(token, TokenScores(-1.0, ()))
        deltas += [event for event in events if isinstance(event, TextDelta)]
        if ended:
            finished = next(event for event in events if isinstance(event, ChoiceFinished))
            return "".join(delta.text for delta in deltas), deltas, finished.finish_reason
    return "".join(delta.text for delta in deltas), deltas, None


def test_a_stop_string_of_characters_outside_the_vocabulary_ends_the_text() -> None:
    assert choice("x🇩🇪🇫🇷y", stop=("🇪🇫",))[0] == "x🇩"


def test_log_probabilities_of_bytes_join_to_the_text() -> None:
    text, deltas, _ = choice("x🇩🇪y")
    assert text == "x🇩🇪y"
    assert bytes(itertools.chain.from_iterable(entry.bytes for delta in deltas for entry in delta.logprobs)).decode() == text
