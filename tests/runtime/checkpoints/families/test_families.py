"""Families of transformers beside those of the guide: served exactly, or refused with a reason; never silently wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, TextDelta
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from tests.support.checkpoints import make_tokenizer

DOCS = Path(__file__).parents[4] / "docs" / "models.md"
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}
DEEPSEEK = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
SERVED: dict[str, dict[str, Any]] = {
    "Qwen3": {},
    "Qwen3Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "Mistral": {"sliding_window": 16},
    "Mixtral": {"num_local_experts": 4},
    "Phi": {},
    "Phi3": {},
    "Gemma": {"head_dim": 16},
    "Gemma3Text": {"head_dim": 16, "sliding_window": 16},
    "GPTNeoX": {},
    "OPT": {"ffn_dim": 128, "word_embed_proj_dim": 64},
    "Olmo": {},
    "Olmo2": {},
    "Granite": {},
    "Cohere": {},
    "Starcoder2": {},
    "GPTBigCode": GPT,
    "SmolLM3": {},
    "Glm4": {},
    "Exaone4": {},
    "DeepseekV3": DEEPSEEK,
}
REFUSED: dict[str, dict[str, Any]] = {
    "Gemma2": {"head_dim": 16},
    "StableLm": {},
    "Falcon": {"alibi": False},
    "Bloom": {},
    "Mamba": {},
    "GPTJ": {**GPT, "rotary_dim": 8},
    "GptOss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
}


def make(folder: Path, family: str, changes: dict[str, Any]) -> Path:
    tokenizer = make_tokenizer(["<unk>", "<s>", "</s>"], unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    name = family.removesuffix("Text")
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(vocab_size=len(tokenizer), **{**SHAPE, **changes})
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", SERVED)
def test_served_families_are_exact(tmp_path: Path, family: str) -> None:
    folder = make(tmp_path, family, SERVED[family])
    reference: Any = AutoModelForCausalLM.from_pretrained(folder)
    loaded = ModelLoader().load(ModelConfig(model_name=str(folder), device="cpu", dtype="fp32"))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(max_running=4, max_step_tokens=16))
    prompts = [engine.encode(text) for text in ("Hello", "The quick brown fox jumps over the lazy dog. " * 2)]
    config = GenerationConfig(max_new_tokens=20, temperature=0, ignore_eos=True, repetition_penalty=1.0)
    generations = [engine.submit([prompt], config) for prompt in prompts]
    found = [[token for event in each if isinstance(event, TextDelta) for token in event.token_ids] for each in generations]
    engine.close()
    options = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with torch.inference_mode():
        expected = [reference.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist() for prompt in prompts]
    assert found == expected


@pytest.mark.parametrize("family", REFUSED)
def test_what_cannot_be_served_rightly_is_refused_with_its_reason(tmp_path: Path, family: str) -> None:
    folder = make(tmp_path, family, REFUSED[family])
    with pytest.raises(ModelLoadError, match=r"cannot take over|can take over|cannot drive"):
        loaded = ModelLoader().load(ModelConfig(model_name=str(folder), device="cpu", dtype="fp32"))
        InferenceEngine.for_loaded_model(loaded, EngineSettings())


def test_the_table_of_models_names_them_all() -> None:
    table = DOCS.read_text(encoding="utf-8")
    assert [family for family in (*SERVED, *REFUSED) if f"`{family.removesuffix('Text')}ForCausalLM`" not in table] == []
