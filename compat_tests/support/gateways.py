"""Starts a gateway as a process on a real socket, over small checkpoints made with transformers alone; never imports the package."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEXT = ["Once upon a time there was a small model that answered every question.", "Hello! How are you? 你好，世界。 12345"]


@dataclass
class Gateway:
    """A running gateway. checkpoints: folder of each local model."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path
    checkpoints: dict[str, Path]


def make_checkpoint(folder: Path, family: str) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<s>", "</s>"] if family == "llama" else ["<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=320, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=specials[0], eos_token=specials[-1])
    torch.manual_seed(1)
    shared: dict[str, Any] = {"vocab_size": len(fast), "initializer_range": 0.25, "bos_token_id": 0, "eos_token_id": len(specials) - 1}
    decoder: dict[str, Any] = shared | {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "max_position_embeddings": 2048,
    }
    if family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_positions=2048, n_embd=64, n_layer=2, n_head=4, **shared))
    elif family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**decoder))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**decoder))
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_gateway(
    folder: Path, models: Mapping[str, Mapping[str, object]], port: int, *, default_model: str | None = None, **environment: str
) -> Gateway:
    """JSON is YAML, so the configuration needs no YAML library here."""
    (folder / "models.yaml").write_text(json.dumps({"models": models, "default_model": default_model}))
    (folder / "gateway.yaml").write_text(json.dumps({"server": {"early_commit_s": 1.0, "heartbeat_s": 0.2, "max_body_bytes": "1MiB"}}))
    log = folder / "stderr.txt"
    command = [sys.executable, "-m", "mm_gateway.main", "serve", "--models", str(folder / "models.yaml")]
    command += ["--config", str(folder / "gateway.yaml"), "--port", str(port)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MM_GATEWAY_")}
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env={**clean, "OMP_NUM_THREADS": "1", **environment})
    return wait_for(process, port, log)


def wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> Gateway:
    """The gateway once it answers."""
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 180
    while True:
        if process.poll() is not None:
            raise AssertionError(log.read_text())
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
    return Gateway(address, process, log, {})


def stop_gateway(gateway: Gateway) -> None:
    gateway.process.send_signal(signal.SIGTERM)
    gateway.process.wait(timeout=30)
    log = gateway.log.read_text()
    assert "Traceback" not in log, log


def environment(name: str) -> str:
    """The Python of an environment that `make compat` makes."""
    python = Path(__file__).parents[2] / ".compat" / name / "bin" / "python"
    assert python.exists(), f"{python} is missing: run `make compat`"
    return str(python)
