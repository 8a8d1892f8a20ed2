"""The training tools: documents in a row do not see each other, a run goes on where it stopped, and what is exported is served."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from tools.train_tiny_chat.batches import LENGTH, Batch, batches
from tools.train_tiny_chat.export import export
from tools.train_tiny_chat.tokenizer import SPECIALS
from tools.train_tiny_chat.train import Plan, Trainer, architecture

TOKENIZER = Path(__file__).parents[2] / "mm_gateway" / "builtin_models" / "tiny_chat" / "tokenizer.json"
SMALL = architecture(hidden=32, layers=2, heads=2, feed_forward=64)


def test_an_exported_network_computes_the_same_and_stops_where_it_should(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = LlamaForCausalLM(SMALL)
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    export(network, tokenizer, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(0, 4096, (1, 40))
    torch.testing.assert_close(loaded(ids).logits, network.float()(ids).logits, atol=1e-4, rtol=1e-4)
    assert loaded.generation_config.eos_token_id == [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")]
    fast = AutoTokenizer.from_pretrained(tmp_path)
    assert fast.encode("Hello 42 网关") == tokenizer.encode("Hello 42 网关").ids
    assert fast.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False).startswith(SPECIALS[1])


def test_documents_that_share_a_row_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    network = LlamaForCausalLM(SMALL)
    ids = torch.randint(0, 4096, (1, 24))
    documents = torch.tensor([[0] * 10 + [1] * 14])
    positions = torch.tensor([[*range(10), *range(14)]])
    mask = Batch(ids, positions, documents, ids, ids).mask()
    together = network(ids, position_ids=positions, attention_mask=mask).logits
    alone = network(ids[:, 10:]).logits
    torch.testing.assert_close(together[:, 10:], alone, atol=1e-5, rtol=1e-5)


def test_batches_are_whole_examples_and_targets_what_comes_next() -> None:
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    first, again = (list(itertools.islice(batches(tokenizer, 3, rows=2), 3)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert one.ids.shape == (2, LENGTH)
        assert ((one.targets >= 0) == (one.weights > 0)).all()
        assert (one.positions[:, 0] == 0).all()
        learned = one.targets[:, :-1] >= 0
        assert torch.equal(one.ids[:, 1:][learned], one.targets[:, :-1][learned])
        assert (one.documents[:, :-1][learned] == one.documents[:, 1:][learned]).all()


@pytest.mark.parametrize("parts", [1, 2])
def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path, parts: int) -> None:
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    for part in range(1, parts + 1):
        trainer = Trainer(tmp_path, Plan(tokens=6_000 * part, step_rows=2, part_rows=1, config=SMALL))
        assert (trainer.tokens > 0) == (part > 1)
        trainer.run()
        assert trainer.tokens >= 6_000 * part
        assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["tokens"] == trainer.tokens
