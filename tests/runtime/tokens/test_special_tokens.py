"""Special tokens in prompts, in stops and beside log-probabilities."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mm_gateway.api.chat_messages import read_messages
from mm_gateway.api.completions import completion_request
from mm_gateway.api.replies.logprobs import completion_logprobs
from mm_gateway.backends.engine_backend import EngineBackend
from mm_gateway.backends.upstream.request import body_of
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import ChoiceFinished, CompletionInput, GenerationConfig, GenerationRequest, TextDelta, TokenLogprob, TruncationSide
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol import ChatMessage, CompletionRequest
from mm_gateway.protocol.conversation import ContentPart
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelLoader
from mm_gateway.runtime.tokens.token_text import TokenText
from tests.support.byte_fallback import make_byte_fallback_tokenizer

FALLBACK = make_byte_fallback_tokenizer()
BOS, IM_START = 1, 1  # of byte fallback; of the Qwen 2 checkpoint


@pytest.fixture(scope="module")
def engine(qwen2_checkpoint: Path) -> Iterator[InferenceEngine]:
    loaded = ModelLoader().load(ModelConfig(model_name="m", path=str(qwen2_checkpoint)))
    engine = InferenceEngine(loaded.model, loaded.tokenizer, loaded.device, stop_token_ids=loaded.stop_token_ids)
    yield engine
    engine.close()


@pytest.mark.parametrize("ignore_eos", [True, False])
def test_a_stop_string_that_names_a_special_token_ends_the_text(engine: InferenceEngine, ignore_eos: bool) -> None:
    config = GenerationConfig(
        max_new_tokens=5, logit_bias={IM_START: 100}, temperature=0, stop=("<|im_start|>", "unlikely"), ignore_eos=ignore_eos
    )
    events = list(engine.submit([engine.encode("Hello")], config))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == ""
    assert [event.finish_reason for event in events if isinstance(event, ChoiceFinished)] == ["stop"]


@pytest.mark.parametrize(("prompt", "leading"), [("hello", 1), ("<s>hello", 1), ("<s><s>hello", 2)])
def test_a_literal_bos_is_not_doubled(prompt: str, leading: int) -> None:
    ids = TokenText(FALLBACK).encode(prompt)
    assert ids[: leading + 1].count(BOS) == leading


def test_without_special_tokens_a_prompt_is_what_it_says() -> None:
    assert BOS not in TokenText(FALLBACK).encode("hello", add_special_tokens=False)
    assert TokenText(FALLBACK).encode("<s>hello", add_special_tokens=False).count(BOS) == 1


@pytest.mark.parametrize("template", ["$A", "<s> $A", "<s> $A </s>", "$A </s>"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_are_cut_as_transformers_cuts_them(template: str, side: TruncationSide) -> None:
    text, ours, theirs = "hello a <s> in llllö", make_byte_fallback_tokenizer(template), make_byte_fallback_tokenizer(template)
    whole = TokenText(ours).encode(text)
    theirs.truncation_side = side
    for count in range(template.count("<") + 1, len(whole) + 2):
        expected = theirs(text, truncation=True, max_length=count)["input_ids"]
        assert TokenText(ours).cut(text, whole, count, side) == expected
        assert TokenText(theirs).cut(text, whole, count, None) == expected
    plain = whole[-3:] if side == "left" else whole[:3]
    assert TokenText(ours).cut(None, whole, 3, side) == plain


def test_a_text_of_which_nothing_is_left_is_refused() -> None:
    text = TokenText(make_byte_fallback_tokenizer("<s> $A </s>"))
    with pytest.raises(InvalidRequestError, match="2 leaves nothing of a text beside its 2 special tokens"):
        text.cut("hello", text.encode("hello"), 2, None)


@pytest.mark.parametrize("value", [None, True, False])
def test_the_field_reaches_local_and_remote_models(value: bool | None) -> None:
    request = completion_request(CompletionRequest(model="m", prompt="a", add_special_tokens=value), "id")
    assert isinstance(request.input, CompletionInput)
    assert request.input.add_special_tokens is (value is not False)
    assert body_of(request).fields.get("add_special_tokens", True) is (value is not False)


async def _echoed(engine: InferenceEngine, prompt: str) -> AsyncIterator[TextDelta]:
    config = GenerationConfig(max_new_tokens=2, temperature=0, logprobs=0, prompt_logprobs=0, logit_bias={IM_START: 100})
    request = GenerationRequest(request_id="a", model="m", input=CompletionInput((prompt,), echo=True), config=config)
    async for event in EngineBackend(engine).generate(request):
        if isinstance(event, TextDelta):
            yield event


@pytest.mark.anyio
async def test_text_offsets_count_the_characters_of_the_text(engine: InferenceEngine) -> None:
    prompt = "<|im_start|>a 好 b"
    deltas = [delta async for delta in _echoed(engine, prompt)]
    text = "".join(delta.text for delta in deltas)
    assert text == prompt  # what follows are special tokens, which no text has
    tokens = [entry for delta in deltas for entry in delta.logprobs]
    offsets = completion_logprobs(tokens, offset=0).text_offset
    assert offsets[:2] == [0, len("<|im_start|>")]
    assert offsets[-2:] == [len(text), len(text)]
    assert all(
        text[offset] == entry.token[0]
        for offset, entry in zip(offsets, tokens, strict=True)
        if entry.in_text and "\ufffd" not in entry.token
    )


def test_an_added_bos_moves_no_offset() -> None:
    tokens = [TokenLogprob("<s>", tuple(b"<s>"), None, in_text=False), TokenLogprob("a", (97,), -1.0), TokenLogprob("b", (98,), -1.0)]
    assert completion_logprobs(tokens, offset=0).text_offset == [0, 0, 1]


def test_text_parts_of_a_message_are_lines() -> None:
    message = ChatMessage("user", [ContentPart("text", "first"), ContentPart("text", "second")])
    assert read_messages([message])[0].content == "first\nsecond"
