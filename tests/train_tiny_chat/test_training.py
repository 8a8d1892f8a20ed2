"""The training tools: the lean network computes what transformers' Llama does, a run goes on where it stopped, and loss falls."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from tools.train_tiny_chat.batches import batches
from tools.train_tiny_chat.export import export
from tools.train_tiny_chat.network import Network, Shape
from tools.train_tiny_chat.train import Plan, Trainer

TOKENIZER = Path(__file__).parents[2] / "mm_gateway" / "builtin_models" / "tiny_chat" / "tokenizer.json"
SMALL = Shape(hidden=32, layers=2, heads=2, feed_forward=64)


def test_an_exported_network_computes_the_same_in_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network(SMALL)
    export({name: weight.half() for name, weight in network.state_dict().items()}, SMALL, TOKENIZER, tmp_path)
    network.load_state_dict({name: weight.half().float() for name, weight in network.state_dict().items()})
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(0, 4096, (1, 300))  # longer than what is computed with a mask
    for part in (ids, ids[:, :40]):
        positions = torch.arange(part.shape[1])[None]
        hidden = network(part, positions, torch.zeros_like(part))
        logits = F.linear(hidden, network.embed_tokens.weight)
        torch.testing.assert_close(logits, model(part).logits, atol=1e-4, rtol=1e-4)


def test_documents_that_share_a_row_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    network = Network(SMALL)
    ids = torch.randint(0, 4096, (1, 24))
    documents = torch.tensor([[0] * 10 + [1] * 14])
    positions = torch.tensor([[*range(10), *range(14)]])
    together = network(ids, positions, documents)
    alone = network(ids[:, 10:], positions[:, 10:], documents[:, 10:])
    torch.testing.assert_close(together[:, 10:], alone, atol=1e-5, rtol=1e-5)


def test_batches_learn_answers_and_what_is_repeated() -> None:
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    first, again = (list(itertools.chain.from_iterable(itertools.islice(batches(tokenizer, 3, 1024, 2), 6))) for _ in range(2))
    assert all(one.ids.shape == other.ids.shape for one, other in zip(first[::2], first[1::2], strict=True))
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert ((one.targets >= 0) == (one.weights > 0)).all()
        assert (one.positions[:, 0] == 0).all()
        learned = one.targets[:, :-1] >= 0
        assert torch.equal(one.ids[:, 1:][learned], one.targets[:, :-1][learned])


@pytest.mark.parametrize("parts", [1, 2])
def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path, parts: int) -> None:
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    for part in range(1, parts + 1):
        plan = Plan(tokens=12_000 * part, batch_tokens=1024, step_batches=2, compiled=False, shape=SMALL, checkpoint_s=1e9)
        trainer = Trainer(tmp_path, plan)
        assert (trainer.tokens > 0) == (part > 1)
        trainer.run()
        assert trainer.tokens >= 12_000 * part
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["tokens"] == trainer.tokens
