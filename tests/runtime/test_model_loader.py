"""Loading real checkpoints: what is settled at load, and what each failure says."""

from __future__ import annotations

import codecs
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from mm_gateway.configuration.model_config import ModelConfig, SamplingDefaults
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, Message, Progress
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.files import checkpoint_folder
from mm_gateway.runtime.model_loader import ModelLoader
from tests.support import checkpoints


def config_of(folder: Path, **more: Any) -> ModelConfig:
    return ModelConfig(model_name=str(folder), device="cpu", **more)


@pytest.fixture
def copy(llama_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that the test may damage."""
    return Path(shutil.copytree(llama_checkpoint, tmp_path / "copy"))


def test_what_a_model_needs_is_settled(checkpoint: Path) -> None:
    seen: list[Progress] = []
    loaded = ModelLoader().load(config_of(checkpoint), progress=seen.append)
    assert loaded.device == torch.device("cpu")
    assert loaded.context_length == 256
    assert loaded.tokenizer.pad_token_id is not None
    assert loaded.tokenizer.eos_token_id in loaded.stop_token_ids
    assert not loaded.model.training
    assert loaded.weight_bytes > 0
    assert [progress.stage for progress in seen] == ["loading"] * len(seen)
    assert len(seen) >= 3


@pytest.mark.parametrize(
    ("stated", "prefix", "dtype"),
    [("torch.bfloat16", b"", torch.bfloat16), ("auto", b"", torch.float32), ("float32", codecs.BOM_UTF8, torch.float32)],
)
def test_what_editors_and_scripts_write_into_config_json_is_understood(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: str, prefix: bytes, dtype: torch.dtype
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = copy / "config.json"
    content = {key: value for key, value in json.loads(path.read_text()).items() if key != "dtype"}
    path.write_bytes(prefix + json.dumps({**content, "torch_dtype": stated}).encode())
    loader = ModelLoader(pack=False)
    _, need = loader.prepare(config_of(copy), EngineSettings(), lambda _: None)
    loaded = loader.load(config_of(copy))
    assert loaded.model.dtype == dtype
    assert need.weight_bytes == pytest.approx(loaded.weight_bytes, rel=0.1)


def test_models_load_at_the_same_time_without_disturbing_each_other(tmp_path: Path, qwen2_checkpoint: Path) -> None:
    tied = checkpoints.llama(tmp_path / "tied", tie_word_embeddings=True)
    configs = [config_of(tied), config_of(qwen2_checkpoint, dtype="bf16"), config_of(tied, dtype="fp16")] * 4
    with ThreadPoolExecutor(6) as pool:
        loaded = list(pool.map(ModelLoader().load, configs))
    alone = [ModelLoader().load(config).weight_bytes for config in configs[:3]]
    assert [model.weight_bytes for model in loaded] == alone * 4


def test_a_name_may_stand_for_a_folder(llama_checkpoint: Path) -> None:
    config = ModelConfig(model_name="my/model", path=str(llama_checkpoint), device="cpu")
    assert ModelLoader().load(config).config.model_name == "my/model"


def test_the_context_is_clamped_to_what_the_model_can_do(gpt2_checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert ModelLoader().load(config_of(gpt2_checkpoint, max_context_length=100)).context_length == 100
    assert ModelLoader().load(config_of(gpt2_checkpoint, max_context_length=4096)).context_length == 256
    assert "clamped" in caplog.text


def test_the_configured_template_wins_then_the_checkpoints_then_that_of_its_type(
    qwen2_checkpoint: Path, llama_checkpoint: Path, tmp_path: Path
) -> None:
    messages = [Message("user", "Hi")]
    own = ModelLoader().load(config_of(qwen2_checkpoint)).chat
    assert own.render(messages) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    named = ModelLoader().load(config_of(qwen2_checkpoint, chat_template="gpt2")).chat
    assert (named.render(messages), named.stop_strings) == ("User: Hi\nAssistant:", ("\nUser:", "\nSystem:", "\nAssistant:"))
    (tmp_path / "mine.jinja").write_text("{{ messages[0].content }}!")
    assert ModelLoader().load(config_of(qwen2_checkpoint, chat_template=str(tmp_path / "mine.jinja"))).chat.render(messages) == "Hi!"
    assert ModelLoader().load(config_of(llama_checkpoint)).chat.render(messages) == "<s>[INST] Hi [/INST]"


def test_turn_ending_tokens_of_the_template_stop(qwen2_checkpoint: Path) -> None:
    loaded = ModelLoader().load(config_of(qwen2_checkpoint))
    tokenizer = AutoTokenizer.from_pretrained(qwen2_checkpoint)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in loaded.stop_token_ids


def test_sampling_defaults_come_from_the_checkpoint(copy: Path) -> None:
    path = copy / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_sample": True, "top_p": 0.8, "temperature": 0.6, "top_k": 0}))
    defaults = ModelLoader().load(config_of(copy)).generation_defaults
    assert (defaults.top_p, defaults.temperature, defaults.top_k) == (0.8, 0.6, 0)


def test_sampling_of_the_entry_wins_over_the_checkpoints(copy: Path) -> None:
    path = copy / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_sample": True, "top_p": 0.8, "min_p": 0.1}))
    defaults = ModelLoader().load(config_of(copy, sampling=SamplingDefaults(temperature=0, top_p=0.5))).generation_defaults
    assert (defaults.temperature, defaults.top_p, defaults.min_p, defaults.top_k) == (0, 0.5, 0.1, None)
    completed = defaults.complete(GenerationConfig(top_p=1.0, min_p=0))
    assert (completed.temperature, completed.top_p, completed.min_p) == (0, 1, 0)


@pytest.mark.parametrize("value", ["NaN", "-1", "1e999", '"hot"'])
def test_a_sampling_default_that_is_out_of_its_range_is_no_requests_fault(copy: Path, value: str, caplog: pytest.LogCaptureFixture) -> None:
    (copy / "generation_config.json").write_text(f'{{"do_sample": true, "top_p": 0.8, "temperature": {value}}}')
    defaults = ModelLoader().load(config_of(copy)).generation_defaults
    assert (defaults.top_p, defaults.temperature) == (0.8, None)
    assert "temperature of generation_config.json is ignored" in caplog.text
    assert defaults.complete(GenerationConfig()).temperature is None


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_weights_take_the_memory_of_their_dtype(llama_checkpoint: Path, dtype: Any) -> None:
    loaded = ModelLoader().load(config_of(llama_checkpoint, dtype=dtype))
    parameters = sum(tensor.numel() for tensor in load_file(llama_checkpoint / "model.safetensors").values())
    assert loaded.weight_bytes == pytest.approx(parameters * (4 if dtype == "fp32" else 2), rel=0.02)
    assert loaded.dtype == torch.float32  # 16-bit weights, fp32 arithmetic


def damage_nothing_there(folder: Path) -> None:
    shutil.rmtree(folder)


def damage_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def damage_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def damage_no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def damage_cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def damage_more_layers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))


def damage_unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard-of", "architectures": ["UnheardOf"]}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_nothing_there, "does not exist"),
        (damage_no_config, "config.json"),
        (damage_no_weights, "weight files are missing"),
        (damage_no_tokenizer, "tokenizer"),
        (damage_cut_weights, "Failed to load"),
        (damage_more_layers, "lacks 9 of the model's weights"),
        (damage_unknown_architecture, "unheard-of"),
    ],
)
def test_a_damaged_checkpoint_says_what_is_wrong(copy: Path, damage: Callable[[Path], None], says: str) -> None:
    damage(copy)
    with pytest.raises(ModelLoadError, match=says) as caught:
        ModelLoader().load(config_of(copy, path=str(copy)))
    assert not caught.value.retryable
    assert "Traceback" not in str(caught.value)


def test_a_model_that_generates_no_text_is_refused(copy: Path) -> None:
    bert = BertConfig(vocab_size=100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertForMaskedLM(bert).save_pretrained(copy)
    with pytest.raises(ModelLoadError, match="BertForMaskedLM is no causal language model"):
        ModelLoader().load(config_of(copy))


def test_a_gpu_that_is_not_there_is_said(llama_checkpoint: Path) -> None:
    if torch.cuda.is_available():
        config = ModelConfig(model_name=str(llama_checkpoint), device=f"cuda:{torch.cuda.device_count()}")
    else:
        config = ModelConfig(model_name=str(llama_checkpoint), device="cuda")
    with pytest.raises(ModelLoadError, match="CUDA"):
        ModelLoader().load(config)


def test_an_abandoned_load_ends_between_its_stages(llama_checkpoint: Path) -> None:
    with pytest.raises(ModelLoadError, match="abandoned") as caught:
        ModelLoader().load(config_of(llama_checkpoint), should_stop=lambda: True)
    assert caught.value.retryable


class Hub(HTTPServer):
    """A hub on loopback that answers everything with one status. asked: paths."""

    status = 404
    header: tuple[str, str] | None = None
    asked: list[str]


class HubHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        hub = self.server
        assert isinstance(hub, Hub)
        hub.asked.append(self.path)
        self.send_response(hub.status)
        if hub.header is not None:
            self.send_header(*hub.header)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = Hub(("127.0.0.1", 0), HubHandler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    # huggingface_hub reads its address from the environment once, at import.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "header", "says", "retryable"),
    [
        (404, ("X-Error-Code", "RepoNotFound"), "is not on the hub", False),
        (401, ("X-Error-Message", "Invalid credentials in Authorization header"), r"refused access.*HF_TOKEN", False),
        (403, ("X-Error-Code", "GatedRepo"), "gated", False),
        (404, ("X-Error-Code", "RevisionNotFound"), "no revision 'main2'", False),
    ],
)
def test_what_the_hub_refuses_is_explained(hub: Hub, status: int, header: tuple[str, str], says: str, retryable: bool) -> None:
    hub.status, hub.header = status, header
    with pytest.raises(ModelLoadError, match=says) as caught:
        checkpoint_folder(ModelConfig(model_name="nobody/nothing", revision="main2"), lambda _: None)
    assert caught.value.retryable is retryable
    assert hub.asked


def test_without_a_network_the_advice_is_to_bring_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    )
    with pytest.raises(ModelLoadError, match=r"hub cannot be reached.*set path") as caught:
        checkpoint_folder(ModelConfig(model_name="nobody/nothing"), lambda _: None)
    assert caught.value.retryable
