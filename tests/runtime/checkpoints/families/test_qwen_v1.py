"""Qwen v1 as published: the same logits as the architecture written down once more, the same ids as tiktoken, the same prompts."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, Message
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.families.qwen_v1 import PATTERN, cache_folder, load_tokenizer, translate_config
from mm_gateway.runtime.checkpoints.memory_estimate import estimate
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelLoader
from tests.support.checkpoints import token_id
from tests.support.qwen_v1_checkpoint import CONTEXT, SPECIALS, make_qwen_v1, reference_logits

TEXTS = [
    "什么是机器学习？请用三句话解释。",
    "def f(x):\n\treturn x ** 2  # 平方\n\n\nprint(f(12345))",
    "Emoji 🎉👩‍👩‍👧 and naïve café; I'll DON'T we've   three   spaces \n\n \t tabs  ",
    "1234567890 3.14159 ２０２４年",
    "Ünïcödé e\u0301 é <|im_end|> <|endoftext|> <|extra_7|> <|nothing|>",
    "",
    " ",
    "\r\n\r\n  x",
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def config_of(folder: Path, **more: Any) -> ModelConfig:
    settings: dict[str, Any] = {"model_type": "qwen-chat", "device": "cpu", "dtype": "fp32", "trust_remote_code": True}
    return ModelConfig(model_name=str(folder), **settings | more)


def logits_of(folder: Path, ids: list[int], **more: Any) -> torch.Tensor:
    model = ModelLoader(pack=False).load(config_of(folder, **more)).model
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("old_names", [False, True])
@pytest.mark.parametrize("shards", [1, 2])
def test_logits_equal_those_of_the_architecture(tmp_path: Path, old_names: bool, shards: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    weights = make_qwen_v1(tmp_path, old_names=old_names, shards=shards)
    ids = [(7 * place + 3) % 400 for place in range(CONTEXT)]
    torch.testing.assert_close(logits_of(tmp_path, ids), reference_logits(weights, ids), rtol=1e-5, atol=1e-4)
    assert "no remote code is run" in caplog.text


def test_the_comparison_would_notice_a_swapped_gate(tmp_path: Path) -> None:
    weights = make_qwen_v1(tmp_path)
    swapped = {name.replace(".w1.", ".tmp.").replace(".w2.", ".w1.").replace(".tmp.", ".w2."): tensor for name, tensor in weights.items()}
    ids = list(range(40))
    assert (logits_of(tmp_path, ids) - reference_logits(swapped, ids)).abs().max() > 0.1


def test_the_engine_serves_it_greedily_as_the_reference_would(tmp_path: Path) -> None:
    weights = make_qwen_v1(tmp_path)
    loaded = ModelLoader().load(config_of(tmp_path))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(max_running=4))
    ids = loaded.chat.encode([Message("user", "Hello")])
    expected = list(ids)
    for _ in range(12):
        expected.append(int(reference_logits(weights, expected)[-1].argmax()))
    config = GenerationConfig(max_new_tokens=12, temperature=0, ignore_eos=True, repetition_penalty=1.0)
    tokens = [token for event in engine.submit([ids], config) for token in getattr(event, "token_ids", ())]
    engine.close()
    assert tokens == expected[len(ids) :]


def test_ids_equal_those_of_tiktoken_with_qwens_pattern(tmp_path: Path) -> None:
    make_qwen_v1(tmp_path)
    lines = (tmp_path / "qwen.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{index}|>" for index in range(205))]
    specials = {name: len(ranks) + place for place, name in enumerate(names)}
    reference = tiktoken.Encoding("qwen", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=specials)
    tokenizer = load_tokenizer(tmp_path)
    import unicodedata

    for text in [*TEXTS, "".join(TEXTS)]:
        normal = unicodedata.normalize("NFC", text)
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == reference.encode(normal, allowed_special="all")
        assert tokenizer.decode(ids) == normal
        loaded_plain = ModelLoader().load(config_of(tmp_path)).chat
        assert loaded_plain.encode([Message("user", text)]) == make_context(reference, [("user", normal)])


def make_context(encoding: tiktoken.Encoding, turns: list[tuple[str, str]]) -> list[int]:
    """Qwen's own: every turn's role and text encoded by themselves, control tokens in them as plain text."""
    start, end = (encoding.encode_single_token(name) for name in ("<|im_start|>", "<|im_end|>"))
    newline = encoding.encode("\n")
    if turns[0][0] != "system":
        turns = [("system", "You are a helpful assistant."), *turns]
    ids: list[int] = []
    for role, text in turns:
        ids += [start, *encoding.encode(role), *newline, *encoding.encode(text, disallowed_special=()), end, *newline]
    return [*ids, start, *encoding.encode("assistant"), *newline]


def test_special_ids_follow_the_ranks_and_the_conversion_is_cached(tmp_path: Path) -> None:
    make_qwen_v1(tmp_path)
    ranks = len((tmp_path / "qwen.tiktoken").read_bytes().splitlines())
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|extra_204|>"]) == [
        ranks,
        ranks + 1,
        ranks + 2,
        ranks + SPECIALS - 1,
    ]
    assert len(list(cache_folder().glob("*.json"))) == 1
    assert load_tokenizer(tmp_path).encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


def test_stops_defaults_and_context_are_the_checkpoints(tmp_path: Path) -> None:
    make_qwen_v1(tmp_path)
    loaded = ModelLoader().load(config_of(tmp_path, max_context_length=8192))
    first = token_id(loaded.tokenizer, "<|endoftext|>")
    assert loaded.stop_token_ids == {first, first + 1, first + 2}
    assert loaded.generation_defaults.top_p == 0.8
    assert loaded.context_length == CONTEXT
    need = estimate(tmp_path, config_of(tmp_path), EngineSettings(), device_type="cpu", budget_bytes=None)
    assert need.weight_bytes == pytest.approx(loaded.weight_bytes, rel=0.1)
    assert need.kv_cache_bytes > 0


def test_tied_weights_are_tied(tmp_path: Path) -> None:
    weights = make_qwen_v1(tmp_path)
    from safetensors.torch import save_file

    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    ids = list(range(20))
    expected = reference_logits({**weights, "lm_head.weight": weights["transformer.wte.weight"]}, ids)
    torch.testing.assert_close(logits_of(tmp_path, ids), expected, rtol=1e-5, atol=1e-4)


def test_variants_that_were_never_published_are_refused(tmp_path: Path) -> None:
    make_qwen_v1(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in ({"no_bias": False}, {"kv_channels": 8}, {"rotary_pct": 0.5}):
        with pytest.raises(ModelLoadError, match="Qwen v1"):
            translate_config({**config, **change})
    (tmp_path / "qwen.tiktoken").write_bytes(b"no ranks\n")
    with pytest.raises(ModelLoadError, match="line 1 is no rank"):
        ModelLoader().load(config_of(tmp_path))
