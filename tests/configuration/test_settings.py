"""Configuration: what is read, what wins, and that every mistake names file, entry, key and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest
import yaml

from mm_gateway.catalog import build_catalog
from mm_gateway.chat_templates.templates import BUILT_IN
from mm_gateway.chat_templates.tool_formats.formats import TOOL_FORMATS
from mm_gateway.configuration.api_key import hashed
from mm_gateway.configuration.loader import load_settings
from mm_gateway.configuration.model_config import ModelConfig, ModelType, Quantization, ToolFormatName
from mm_gateway.configuration.search_settings import SearchProviderName
from mm_gateway.configuration.sections import SECTIONS
from mm_gateway.configuration.settings import MemorySettings, Settings, WorkflowSettings
from mm_gateway.configuration.words import description, range_in_words
from mm_gateway.errors import ConfigurationError, ModelNotFoundError
from mm_gateway.runtime.checkpoints.quantized.formats import FORMATS
from mm_gateway.search.providers import PROVIDERS

CONFIG = Path(__file__).parents[2] / "config"
GUIDE_KEYS = (
    "model_name",
    "model_type",
    "device",
    "dtype",
    "quantization",
    "trust_remote_code",
    "flash_attention",
    "max_context_length",
)


def load(folder: Path, models: str = "models: {m: {model_name: m}}", gateway: str = "", **environ: str) -> Settings:
    (folder / "models.yaml").write_text(models)
    (folder / "gateway.yaml").write_text(gateway)
    return load_settings(folder / "models.yaml", folder / "gateway.yaml", environ)


def test_the_shipped_configuration_holds_the_guides_models() -> None:
    settings = load_settings(CONFIG / "models.yaml", CONFIG / "gateway.yaml", {})
    assert {"gpt2", "gpt2-medium", "qwen-7b-chat", "qwen-7b-chat-int4"} <= set(settings.models)
    assert settings.models["qwen-7b-chat"] == ModelConfig(
        model_name="Qwen/Qwen-7B-Chat",
        model_type="qwen-chat",
        dtype="bf16",
        trust_remote_code=True,
        flash_attention=True,
        max_context_length=8192,
    )
    assert settings.models["qwen-7b-chat-int4"].quantization == "gptq"
    assert settings.models["gpt2-medium"].quantization == "8bit"
    assert ModelConfig.__struct_fields__[:8] == GUIDE_KEYS


def test_the_shipped_gateway_file_shows_every_key_with_its_default() -> None:
    shown = yaml.safe_load((CONFIG / "gateway.yaml").read_text())
    settings = load_settings(CONFIG / "models.yaml", CONFIG / "gateway.yaml", {})
    defaults = Settings()
    for section in shown:
        assert set(shown[section]) == set(getattr(defaults, section).__struct_fields__)
        assert getattr(settings, section) == getattr(defaults, section)
    assert {"models", "allow", "default_model", "keys", "files", *shown} == set(Settings.__struct_fields__)


def test_sizes_may_carry_units(tmp_path: Path) -> None:
    settings = load(tmp_path, "models: {m: {model_name: m, kv_cache_bytes: 1.5GiB}}", "server: {max_body_bytes: 2MB}")
    assert settings.models["m"].kv_cache_bytes == 3 * 2**29
    assert settings.server.max_body_bytes == 2_000_000


def test_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    config = load(tmp_path, "models: {m: {model_name: m, path: weights, chat_template: t.jinja}}").models["m"]
    assert config.path == str(tmp_path / "weights")
    assert config.chat_template == str(tmp_path / "t.jinja")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        gateway="server: {port: 1, host: a}\nmemory: {memory_threshold: 0.5}",
        MM_GATEWAY_PORT="9000",
        MM_GATEWAY_API_KEYS="one, two",
        MM_GATEWAY_MEMORY_MAX_CACHED_MODELS="7",
        MM_GATEWAY_MEMORY_BUDGET_BYTES="4GiB",
        MM_GATEWAY_ENGINE_PREFIX_CACHE="false",
    )
    assert (settings.server.host, settings.server.port, settings.server.api_keys) == ("a", 9000, (hashed("one"), hashed("two")))
    assert settings.memory == MemorySettings(memory_threshold=0.5, max_cached_models=7, budget_bytes=2**32)
    assert settings.engine.prefix_cache is False


def test_files_can_be_named_by_the_environment(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("models: {other: {model_name: o}}")
    settings = load_settings(None, None, {"MM_GATEWAY_MODELS": str(tmp_path / "other.yaml")})
    assert set(settings.models) == {"other"}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{}", "model_name is missing"),
        ("{model_name: 3}", "model_name: got 3, allowed is a text"),
        ("{model_name: x, model_type: falcon}", "model_type: got 'falcon', allowed is chatml, gpt2, llama, qwen-chat or null"),
        ("{model_name: x, device: tpu}", "device: got 'tpu', allowed is auto, cuda, cuda:N or cpu"),
        ("{model_name: x, dtype: int8}", "dtype: got 'int8', allowed is auto, bf16, fp16 or fp32"),
        ("{model_name: x, quantization: 3bit}", "quantization: got '3bit', allowed is 4bit, 8bit, awq, bitsandbytes, "),
        ("{model_name: x, trust_remote_code: 'yes'}", "trust_remote_code: got 'yes', allowed is true or false"),
        ("{model_name: x, flash_attention: 1}", "flash_attention: got 1, allowed is true or false"),
        ("{model_name: x, max_context_length: 0}", "max_context_length: got 0, allowed is at least 1"),
        ("{model_name: x, max_context_lenght: 9}", "unknown key 'max_context_lenght'; did you mean max_context_length?"),
        ("{model_name: x, backend: vllm}", "backend: got 'vllm', allowed is local, mock, or remote"),
        ("{model_name: x, base_url: 'http://a'}", "base_url: is only allowed with backend: remote"),
        ("{model_name: x, backend: remote}", "base_url: must be an http:// or https:// address"),
        ("{model_name: x, backend: mock, sampling: {}}", "sampling: is only allowed with backend: local"),
        ("{model_name: x, sampling: {temperature: 3}}", "sampling: got {'temperature': 3}, allowed is keys and values: temperature, "),
        ("{model_name: x, sampling: {temp: 1}}", "sampling: got {'temp': 1}, allowed is keys and values: temperature, "),
        ("{model_name: x, chat_template: none.jinja}", "chat_template: 'none.jinja' is neither"),
        ("[1]", "must be a mapping, not list"),
    ],
)
def test_a_wrong_entry_names_file_model_key_and_what_is_allowed(tmp_path: Path, entry: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, f"models: {{bad: {entry}}}")
    message = str(caught.value)
    assert f"{tmp_path / 'models.yaml'}: model bad" in message
    where, _, allowed = says.partition("allowed is ")
    assert where in message
    assert set(allowed.replace(",", " ").split()) <= set(message.replace(",", " ").split())


@pytest.mark.parametrize(
    ("models", "gateway", "environ", "says"),
    [
        ("models: {}", "", {}, "models must be a mapping of at least one name"),
        ("models: {m: {model_name: m}}\nmodel: 1", "", {}, "unknown key 'model'; did you mean models?"),
        ("models: {m: {model_name: m}}\ndefault_model: n", "", {}, "default_model: 'n' is not among the models: m"),
        ("models: {a: {model_name: a}, b: {model_name: b, aliases: [a]}}", "", {}, "model b: aliases: 'a' already names a"),
        ("models: {m: {model_name: m}, m: {model_name: n}}", "", {}, "key 'm' is given twice"),
        ("models: [", "", {}, "is no valid YAML"),
        ("models: {m: 2027-02-30}", "", {}, "is no valid YAML: a value cannot be read: day is out of range for month"),
        ("models: {m: !!int many}", "", {}, "is no valid YAML: a value cannot be read"),
        ("models: {m: !!bool maybe}", "", {}, "is no valid YAML: a value cannot be read"),
        ("models: {[m]: n}", "", {}, "is no valid YAML: a key must be a text or a number"),
        ("[" * 3000, "", {}, "is no valid YAML: it is nested too deeply"),
        ('models: {"a\\nb": {model_name: m}}', "", {}, "model 'a\\nb': a name must be printable"),
        ('models: {"": {model_name: m}}', "", {}, "model '': a name must be printable, and neither empty"),
        ('models: {m: {model_name: m, aliases: ["\\ud800"]}}', "", {}, "a name must be printable"),
        ("models: {m: {model_name: m, price: {input: .inf}}}", "", {}, "a price must be finite"),
        (None, "server: {port: 99999}", {}, "gateway.yaml: server: port: got 99999, allowed is 0 to 65535"),
        (None, "memory: {memory_threshold: 1.5}", {}, "memory: memory_threshold: got 1.5, allowed is greater than 0, at most 1"),
        (None, "search: {provider: google}", {}, "search: provider: got 'google', allowed is "),
        (None, "storage: {max_responses: 0}", {}, "storage: max_responses: got 0, allowed is at least 1"),
        (None, "storage: {response_ttl_s: 0}", {}, "storage: response_ttl_s: got 0, allowed is greater than 0, or null"),
        (None, "storage: {response_max_bytes: 1KB}", {}, "storage: response_max_bytes: got 1000, allowed is at least 1024"),
        (None, "search: {searxng_url: localhost}", {}, "searxng_url: got 'localhost', allowed is an http:// or https:// address, or null"),
        (None, "search: {max_results: 21}", {}, "max_results: got 21, allowed is 1 to 20"),
        (None, "sever: {}", {}, "unknown key 'sever'; did you mean server?"),
        (None, "", {"MM_GATEWAY_PORT": "many"}, "MM_GATEWAY_PORT: got 'many', allowed is a whole number"),
        (None, "", {"MM_GATEWAY_PROT": "1"}, "unknown variable MM_GATEWAY_PROT; did you mean MM_GATEWAY_PORT?"),
    ],
)
def test_every_other_mistake_says_where_and_what(
    tmp_path: Path, models: str | None, gateway: str, environ: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, models or "models: {m: {model_name: m}}", gateway, **environ)
    assert says in str(caught.value)


@pytest.mark.parametrize("kind", [ModelConfig, *SECTIONS.values()])
def test_every_setting_is_explained_and_its_default_is_allowed(kind: type[msgspec.Struct]) -> None:
    hints = get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        text = description(hints[field.name])
        assert text.endswith("."), field.name
        assert not field.name.startswith(("max_", "min_")) or range_in_words(hints[field.name]), field.name
        if not field.required and field.default_factory is msgspec.NODEFAULT:
            assert msgspec.convert(field.default, hints[field.name]) == field.default


@pytest.mark.parametrize("section", ["server: {early_commit_s: .nan}", "memory: {memory_threshold: .nan}", "limits: {max_requests: .inf}"])
def test_what_is_no_number_is_refused(tmp_path: Path, section: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed is"):
        load(tmp_path, gateway=section)


def test_the_names_that_settings_allow_are_those_that_there_are() -> None:
    assert set(get_args(ModelType)) == set(BUILT_IN)
    assert set(get_args(ToolFormatName)) == set(TOOL_FORMATS)
    assert set(get_args(SearchProviderName)) == set(PROVIDERS)
    assert set(get_args(Quantization)) == {name for name in FORMATS if name is not None}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml cannot be read"):
        load_settings(tmp_path / "nowhere.yaml", None, {})


def test_workflows_use_a_model_that_is_served(tmp_path: Path) -> None:
    models = "models: {m: {model_name: m, aliases: [n]}}"
    settings = load(tmp_path, models, "workflows: {model: n, session_ttl_s: null}")
    assert settings.workflows == WorkflowSettings(model="n", session_ttl_s=None)
    with pytest.raises(ConfigurationError, match="workflows: model: 'x' is not among the models: m"):
        load(tmp_path, models, "workflows: {model: x}")
    with pytest.raises(ConfigurationError, match="names that begin with mm-orch/ are those of workflows"):
        load(tmp_path, "models: {mm-orch/x: {model_name: m}}")


def test_patterns_of_anthropics_names_lead_to_models_that_there_are(tmp_path: Path) -> None:
    models, gateway = tmp_path / "models.yaml", tmp_path / "gateway.yaml"
    models.write_text("models: {a: {model_name: a, backend: mock, aliases: [b]}}")
    gateway.write_text('anthropic: {models: {"claude-haiku-*": b, "claude-*": a}}')
    settings = load_settings(models, gateway, {})
    assert settings.anthropic.models == {"claude-haiku-*": "b", "claude-*": "a"}
    catalog = build_catalog(settings)
    assert catalog.resolve("claude-opus-5").info().id == catalog.resolve("claude-haiku-5").info().id == "a"
    with pytest.raises(ModelNotFoundError):
        catalog.resolve("gpt-5")
    assert load_settings(models, gateway, {"MM_GATEWAY_ANTHROPIC_MODELS": "x*=a, y=b"}).anthropic.models == {"x*": "a", "y": "b"}
    gateway.write_text('anthropic: {models: {"claude-*": c}}')
    with pytest.raises(ConfigurationError, match="'c' is not among the models: a"):
        load_settings(models, gateway, {})


def test_a_folder_for_prefixes_needs_memory_in_which_they_wait(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="prefix_cache_folder: needs prefix_cache_bytes"):
        load(tmp_path, gateway="engine: {prefix_cache_folder: kept}")
    settings = load(tmp_path, gateway="engine: {prefix_cache_folder: kept, prefix_cache_bytes: 1GiB}")
    assert (settings.engine.prefix_cache_folder, settings.engine.prefix_cache_bytes) == ("kept", 2**30)
