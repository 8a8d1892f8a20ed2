"""Long texts meet a real tokenizer: refused where they cannot fit, and other threads go on where they can."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm_gateway.backends.engine_backend import EngineBackend
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import ChatInput, CompletionInput, EmbeddingInput, GenerationRequest, Message
from mm_gateway.errors import ContextLengthExceededError, InvalidRequestError
from mm_gateway.runtime.checkpoints.tokenizer import load_tokenizer
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader, load_model_text
from mm_gateway.runtime.tokens.chat_tokenizer import ChatTokenizer

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
    with pytest.raises(InvalidRequestError, match="at most 1048576 are tokenized") as caught:
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
