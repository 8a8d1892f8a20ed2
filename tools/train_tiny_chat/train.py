"""Training: streams the corpus, computes in bfloat16 over float32 weights, writes checkpoints, and can go on from one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from tools.train_tiny_chat.batches import LENGTH, Batch, batches

_CHECKPOINT_S = 300


def architecture(hidden: int = 256, layers: int = 6, heads: int = 4, feed_forward: int = 704) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=4096,
        hidden_size=hidden,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        use_cache=False,
    )


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        tokens: of the whole run, padding included.
        step_rows: rows of a step of the optimizer. part_rows: of what is computed at a time, which bounds the memory.
        muon_rate, adam_rate: peak learning rates of matrices, and of embedding and norms.
        early: share of the run with the early mixture. warm_up: steps. decay: share of the run at whose end the rates have fallen to zero.
    """

    tokens: int = 90_000_000
    step_rows: int = 16
    part_rows: int = 4
    muon_rate: float = 0.014
    adam_rate: float = 0.003
    early: float = 0.2
    warm_up: int = 60
    decay: float = 0.28
    seed: int = 1
    config: LlamaConfig = field(default_factory=architecture)

    def rate(self, done_tokens: int, step: int) -> float:
        """Share of the peak rates."""
        left = 1 - done_tokens / self.tokens
        return min(1.0, (step + 1) / self.warm_up) * max(0.0, min(1.0, left / self.decay))


class Trainer:
    """One run. folder: holds tokenizer.json and gets checkpoint.pt; goes on from it where it is there."""

    def __init__(self, folder: Path, plan: Plan, device: str = "cpu") -> None:
        torch.manual_seed(plan.seed)
        self._checkpoint = folder / "checkpoint.pt"
        self._plan = plan
        self._device = torch.device(device)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.network = LlamaForCausalLM(plan.config)
        nn.Module.to(self.network, self._device)  # transformers wraps `to` in a way that type checkers cannot read
        parameters = list(self.network.named_parameters())
        matrices = [weight for name, weight in parameters if weight.dim() == 2 and "embed" not in name]
        others = [weight for name, weight in parameters if weight.dim() != 2 or "embed" in name]
        self._optimizers: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.Muon(matrices, lr=plan.muon_rate, momentum=0.95, weight_decay=0.02), plan.muon_rate),
            (torch.optim.AdamW(others, lr=plan.adam_rate, betas=(0.9, 0.95), weight_decay=0.0), plan.adam_rate),
        ]
        self.step, self.tokens = 0, 0
        if self._checkpoint.exists():
            state = torch.load(self._checkpoint, map_location=self._device, weights_only=True)
            self.network.load_state_dict(state["network"])
            for (optimizer, _), saved in zip(self._optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step, self.tokens = state["step"], state["tokens"]

    def run(self) -> None:
        """Until the planned tokens are done; prints the loss as it goes."""
        plan, saved = self._plan, time.monotonic()
        for early, end in ((True, plan.early * plan.tokens), (False, plan.tokens)):
            stream = batches(self._tokenizer, plan.seed * 1_000_003 + self.step, plan.step_rows, early=early)
            while self.tokens < end:
                loss = self._one_step(next(stream))
                if self.step % 20 == 0:
                    print(f"{time.strftime('%H:%M:%S')} step {self.step} tokens {self.tokens / 1e6:.2f}M loss {loss:.4f}", flush=True)
                if time.monotonic() - saved > _CHECKPOINT_S:
                    self.save()
                    saved = time.monotonic()
        self.save()

    def save(self) -> None:
        optimizers = [optimizer.state_dict() for optimizer, _ in self._optimizers]
        state = {"network": self.network.state_dict(), "optimizers": optimizers, "step": self.step, "tokens": self.tokens}
        partial = self._checkpoint.with_suffix(".tmp")
        torch.save(state, partial)
        partial.replace(self._checkpoint)

    def _one_step(self, batch: Batch) -> float:
        """Returns the mean loss of what is learned."""
        self.network.zero_grad()
        counted, total = batch.weights.sum().item(), 0.0
        for tensors in zip(*(tensor.to(self._device).split(self._plan.part_rows) for tensor in batch), strict=True):
            part = Batch(*tensors)
            with torch.autocast(self._device.type, torch.bfloat16):
                hidden = self.network.model(part.ids, position_ids=part.positions, attention_mask=part.mask()).last_hidden_state
                learned = part.targets >= 0  # the head is computed only where something is learned
                logits = self.network.lm_head(hidden[learned]).float()
            loss = (F.cross_entropy(logits, part.targets[learned], reduction="none") * part.weights[learned]).sum() / counted
            loss.backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        share = self._plan.rate(self.tokens, self.step)
        for optimizer, peak in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            optimizer.step()
        self.step += 1
        self.tokens += len(batch.ids) * LENGTH
        return total
