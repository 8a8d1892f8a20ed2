"""Long texts meet a real tokenizer: refused where they cannot fit, and other threads go on where they can."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from transformers import PreTrainedTokenizerFast

from mm_gateway.backends.engine_backend import EngineBackend
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import ChatInput, CompletionInput, EmbeddingInput, GenerationRequest, Message
from mm_gateway.errors import ContextLengthExceededError, InvalidRequestError
from mm_gateway.runtime.checkpoints.tokenizer import load_tokenizer
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader, load_model_text
from mm_gateway.runtime.tokens.chat_tokenizer import ChatTokenizer
from mm_gateway.runtime.tokens.token_ids import TokenIds
from mm_gateway.runtime.tokens.token_text import TokenText
from mm_gateway.work_pools import LONG_TEXTS

LONG = "It was a dark and stormy night. <|im_end|> " * 350_000  # 15 MB


@pytest.fixture(scope="module")
def engine(qwen2_checkpoint: Path) -> Iterator[InferenceEngine]:
    loaded = ModelLoader().load(ModelConfig(model_name=str(qwen2_checkpoint), device="cpu", dtype="fp32"))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings())
    yield engine
    engine.close()


@pytest.mark.parametrize(
    ("input", "param"),
    [
        (ChatInput((Message("user", LONG),)), "messages"),
        (ChatInput((Message("user", "Hi"), Message("assistant", LONG), Message("user", LONG)), truncate=True), "messages"),
        (CompletionInput((LONG,)), "prompt"),
        (CompletionInput((LONG,), echo=True), "prompt"),
        (EmbeddingInput(("Hi", LONG)), "input"),
    ],
    ids=["chat", "truncated chat", "completion", "echo", "embedding"],
)
async def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenized(
    engine: InferenceEngine, input: ChatInput | CompletionInput | EmbeddingInput, param: str
) -> None:
    """The old engine tokenized 15 MB for minutes, into gigabytes, to give the same answer."""
    started = time.process_time()
    with pytest.raises(ContextLengthExceededError, match=r"maximum context length is .* at least") as caught:
        async for _ in EngineBackend(engine).generate(GenerationRequest(request_id="a", model="m", input=input)):
            pass
    assert caught.value.param == param
    assert time.process_time() - started < 30  # of work, not of waiting; it was minutes


@pytest.mark.parametrize(("input", "param"), [(LONG, "prompt"), (ChatInput((Message("user", LONG),)), "messages")])
def test_what_is_only_tokenized_has_a_bound_of_its_own(qwen2_checkpoint: Path, input: str | ChatInput, param: str) -> None:
    text = load_model_text(ModelConfig(model_name="m", path=str(qwen2_checkpoint)))
    with pytest.raises(InvalidRequestError, match="at most 262144 are tokenized") as caught:
        text.tokenize(input, add_special_tokens=True)
    assert caught.value.param == param
    longer_than_the_context = text.tokenize(LONG[:100_000], add_special_tokens=True)
    assert len(longer_than_the_context.ids) > (longer_than_the_context.context_length or 0)


def test_other_threads_run_while_a_text_is_encoded(qwen2_checkpoint: Path) -> None:
    tokenizer = ChatTokenizer(load_tokenizer(qwen2_checkpoint, name="m", trust_remote_code=False))
    text = LONG[:300_000]
    assert tokenizer.encode_plain(text) == tokenizer._plain.encode(text, add_special_tokens=False).ids  # type: ignore[union-attr]
    encoding = threading.Thread(target=tokenizer.encode_plain, args=(text,))
    turns = 0
    encoding.start()
    while encoding.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 5  # it was one


async def test_what_a_long_text_took_is_given_back(qwen2_checkpoint: Path) -> None:
    ids = TokenIds(load_tokenizer(qwen2_checkpoint, name="m", trust_remote_code=False))
    text, process = "word " * 200_000, psutil.Process()
    await LONG_TEXTS.run(lambda: len(ids(text[:1000])))
    before = process.memory_info().rss
    await LONG_TEXTS.run(lambda: len(ids(text)))
    assert process.memory_info().rss - before < 32 * 2**20  # it was 115


def test_a_tokenizer_whose_file_says_to_cut_and_pad_is_read_whole(qwen2_checkpoint: Path) -> None:
    """As those of embedding models do."""
    tokenizer = load_tokenizer(qwen2_checkpoint, name="m", trust_remote_code=False)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    whole = tokenizer.encode("one two three four five six", add_special_tokens=False)
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=30)
    chat = ChatTokenizer(tokenizer)
    text = "one two three four five six"
    assert chat.encode(text) == chat.encode_plain(text) == TokenText(tokenizer).encode(text, add_special_tokens=False) == whole


@pytest.mark.parametrize("text", ["Hello, Öl 你好", "<|im_start|>user\n</s> x<|endoftext|>", "", "  a\r\n\r\n b"])
@pytest.mark.parametrize("add_special_tokens", [False, True])
def test_token_ids_are_those_of_transformers(checkpoint: Path, text: str, add_special_tokens: bool) -> None:
    tokenizer = load_tokenizer(checkpoint, name="m", trust_remote_code=False)
    assert (
        TokenIds(tokenizer)(text, add_special_tokens=add_special_tokens)
        == tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
    )
