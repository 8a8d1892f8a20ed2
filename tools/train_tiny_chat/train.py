"""Training: streams the corpus, keeps float32 weights and computes with bfloat16 copies, writes checkpoints, and can go on from one.

Under torchrun the batches of a step are shared out among the processes; all of them make the same step with the sum of the gradients.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn

from tools.train_tiny_chat.batches import Batch, batches
from tools.train_tiny_chat.network import Network, Shape

_ROUND = 256


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        tokens: of the whole run, padding included.
        step_batches: batches of `batch_tokens` per step of the optimizer, all of one shape; a multiple of the number of processes.
        muon_rate, adam_rate: peak learning rates of matrices, and of embedding and norms.
        early: share of the run with the early mixture. warm_up: steps. decay: share of the run at whose end the rates have fallen to zero.
        checkpoint_s: seconds between checkpoints.
    """

    tokens: int = 90_000_000
    batch_tokens: int = 4096
    step_batches: int = 4
    muon_rate: float = 0.014
    adam_rate: float = 0.003
    weight_decay: float = 0.02
    early: float = 0.2
    warm_up: int = 60
    decay: float = 0.28
    seed: int = 1
    checkpoint_s: float = 300
    compiled: bool = True
    shape: Shape = field(default_factory=Shape)

    def rate(self, done_tokens: int, step: int) -> float:
        """Share of the peak rates."""
        left = 1 - done_tokens / self.tokens
        return min(1.0, (step + 1) / self.warm_up) * max(0.0, min(1.0, left / self.decay))


class Trainer:
    """One run. folder: holds tokenizer.json and gets checkpoint.pt; goes on from it where it is there."""

    def __init__(self, folder: Path, plan: Plan, device: str = "cpu") -> None:
        torch.manual_seed(plan.seed)
        self._folder = folder
        self._plan = plan
        self._device = torch.device(device)
        self._rank, self._processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if plan.step_batches % self._processes:
            raise ValueError(f"{plan.step_batches} batches per step cannot be shared out among {self._processes} processes")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.master = Network(plan.shape).to(self._device)
        self._worker = Network(plan.shape).to(self._device, torch.bfloat16)
        self._forward = torch.compile(self._worker, dynamic=False) if plan.compiled else self._worker
        matrices = [weight for name, weight in self.master.named_parameters() if weight.dim() == 2 and "embed" not in name]
        others = [weight for name, weight in self.master.named_parameters() if weight.dim() != 2 or "embed" in name]
        self._optimizers: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.Muon(matrices, lr=plan.muon_rate, momentum=0.95, weight_decay=plan.weight_decay), plan.muon_rate),
            (torch.optim.AdamW(others, lr=plan.adam_rate, betas=(0.9, 0.95), weight_decay=0.0), plan.adam_rate),
        ]
        self.step, self.tokens, self._stopping = 0, 0, False
        if (folder / "checkpoint.pt").exists():
            self._restore()

    def run(self) -> None:
        """Until the planned tokens are done, or SIGTERM; prints the loss as it goes."""
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_stopping", True))
        early = self._early()
        stream = self._stream(early)
        saved = reported = started = time.monotonic()
        since, total, weight, stopped = self.tokens, 0.0, 0.0, False
        while self.tokens < self._plan.tokens and not stopped:
            if early and not self._early():
                early, stream = False, self._stream(False)
            loss, counted, stopped = self._one_step(next(stream))
            total, weight = total + loss, weight + counted
            now = time.monotonic()
            if now - reported > 20:
                speed = (self.tokens - since) / (now - reported)
                left = (self._plan.tokens - self.tokens) / speed
                self._print(
                    f"{time.strftime('%H:%M:%S')} step {self.step} tokens {self.tokens / 1e6:.2f}M loss {total / weight:.4f} "
                    f"rate {self._plan.rate(self.tokens, self.step):.2f} {speed:.0f} tokens/s, {left / 60:.0f} min left"
                )
                reported, since, total, weight = now, self.tokens, 0.0, 0.0
            if now - saved > self._plan.checkpoint_s:
                self.save()
                saved = now
        self.save()
        self._print(f"{'stopped' if stopped else 'done'} after {(time.monotonic() - started) / 60:.0f} min")

    def _print(self, text: str) -> None:
        if self._rank == 0:
            print(text, flush=True)

    def _early(self) -> bool:
        return self.tokens < self._plan.early * self._plan.tokens

    def _stream(self, early: bool) -> Iterator[list[Batch]]:
        plan = self._plan
        return batches(self._tokenizer, plan.seed * 1_000_003 + self.step, plan.batch_tokens, plan.step_batches, early=early)

    def save(self) -> None:
        if self._rank:
            return
        state = {
            "network": self.master.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer, _ in self._optimizers],
            "step": self.step,
            "tokens": self.tokens,
        }
        torch.save(state, self._folder / "checkpoint.tmp")
        (self._folder / "checkpoint.tmp").replace(self._folder / "checkpoint.pt")

    def _restore(self) -> None:
        state = torch.load(self._folder / "checkpoint.pt", map_location=self._device, weights_only=True)
        self.master.load_state_dict(state["network"])
        for (optimizer, _), saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.tokens = state["step"], state["tokens"]

    def _one_step(self, step_batches: list[Batch]) -> tuple[float, float, bool]:
        """Sum of the weighted losses, sum of the weights, and whether a process was asked to stop."""
        with torch.no_grad():
            for copy, weight in zip(self._worker.parameters(), self.master.parameters(), strict=True):
                copy.copy_(weight)
                copy.grad = None
        mine = step_batches[self._rank :: self._processes]
        loss = sum(self._backward(Batch(*(part.to(self._device) for part in batch))) for batch in mine)
        gradients = [copy.grad.float().flatten() for copy in self._worker.parameters() if copy.grad is not None]
        sums = torch.cat([*gradients, torch.tensor([loss, float(self._stopping)], device=self._device)])
        if self._processes > 1:
            dist.all_reduce(sums)
        counted = float(sum(batch.weights.sum() for batch in step_batches))
        parameters = list(self.master.parameters())
        *parts, loss, stopping = sums.split([*(weight.numel() for weight in parameters), 1, 1])
        for weight, part in zip(parameters, parts, strict=True):
            weight.grad = (part / counted).view_as(weight)
        nn.utils.clip_grad_norm_(self.master.parameters(), 1.0)
        share = self._plan.rate(self.tokens, self.step)
        for optimizer, peak in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            optimizer.step()
        self.step += 1
        self.tokens += sum(batch.ids.numel() for batch in step_batches)
        return loss.item(), counted, bool(stopping.item())

    def _backward(self, batch: Batch) -> float:
        hidden = self._forward(batch.ids, batch.positions, batch.documents)
        # The head is computed only where something is learned. A round number of places: each new size costs a CPU a new kernel.
        learned = (batch.targets >= 0).flatten().nonzero().squeeze(1)
        places = F.pad(learned, (0, -len(learned) % _ROUND))
        counts = batch.weights.flatten()[places]
        counts[len(learned) :] = 0
        logits = F.linear(hidden.flatten(0, 1)[places], self._worker.embed_tokens.weight).float()
        targets = batch.targets.flatten()[places].clamp(min=0)
        loss = (F.cross_entropy(logits, targets, reduction="none") * counts).sum()
        loss.backward()
        return loss.item()
