"""The parts of the GPU path that run anywhere: kernels against plain attention, and the fixed inputs of captured decode steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig
from mm_gateway.runtime.engine.forward.decode_graphs import StaticDecodeBatch, batch_sizes
from mm_gateway.runtime.engine.forward.model_runner import ModelRunner
from mm_gateway.runtime.engine.forward.sequence_angles import SequenceAngles
from mm_gateway.runtime.engine.forward.verification import probe
from mm_gateway.runtime.kv_cache.block_attention import PagedBatch, agrees, choose_kernel, gather_kernel
from mm_gateway.runtime.kv_cache.choosing import make_kv_cache
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence
from mm_gateway.runtime.scheduling.sequence import Sequence

CPU = torch.device("cpu")


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2)])
def test_gathered_blocks_give_plain_attention_of_each_sequence(heads: int, kv_heads: int, window: int | None) -> None:
    torch.manual_seed(0)
    keys, values = torch.randn(7, 4, kv_heads, 8), torch.randn(7, 4, kv_heads, 8)
    tables, lengths, counts = [[3, 6], [5, 1], [4, 2]], [3, 8, 7], [1, 1, 5]
    batch = PagedBatch(
        query_starts=torch.tensor([0, 1, 2, 7], dtype=torch.int32),
        seq_lens=torch.tensor(lengths, dtype=torch.int32),
        block_table=torch.tensor(tables, dtype=torch.int32),
        query_lens=counts,
        lengths=lengths,
    )
    query = torch.randn(7, heads, 8)
    found = gather_kernel(query, keys, values, batch, 0.25, window)
    first = 0
    for table, length, count in zip(tables, lengths, counts, strict=True):
        own_keys, own_values = (cache[table].flatten(0, 1)[:length].repeat_interleave(heads // kv_heads, 1) for cache in (keys, values))
        rows, columns = torch.arange(length - count, length)[:, None], torch.arange(length)
        seen = (columns <= rows) & (columns > rows - (window or 1000))
        expected = scaled_dot_product_attention(
            query[first : first + count].transpose(0, 1), own_keys.transpose(0, 1), own_values.transpose(0, 1), attn_mask=seen, scale=0.25
        )
        torch.testing.assert_close(found[first : first + count], expected.transpose(0, 1))
        first += count


def test_a_kernel_that_computes_something_else_is_noticed() -> None:
    shape = {"device": CPU, "dtype": torch.float32, "heads": 4, "kv_heads": 2, "head_dim": 16, "block_size": 16}
    assert agrees(gather_kernel, **shape)
    assert not agrees(lambda query, *rest: gather_kernel(query, *rest[:3], 0.5, None), **shape)  # type: ignore[arg-type]
    chosen = choose_kernel(**shape, flash_attention=True)
    assert chosen.run is gather_kernel and not chosen.graphs


def test_captured_batch_sizes_cover_every_batch_without_many_graphs() -> None:
    assert batch_sizes(20) == [1, 2, 4, 8, 16, 20]
    assert batch_sizes(1) == [1]
    assert batch_sizes(64)[-1] == 64


@torch.inference_mode()
def test_the_fixed_inputs_of_a_captured_step_compute_what_the_step_computes(checkpoint: Path) -> None:
    """A graph replays exactly this forward pass; here it runs uncaptured, with padding rows."""
    loaded = ModelLoader().load(ModelConfig(model_name=str(checkpoint), device="cpu", dtype="fp32"))
    shape = probe(loaded.model).shape()
    cache = make_kv_cache(
        shape, device=CPU, dtype=torch.float32, context_length=64, settings=EngineSettings(max_running=4), layout="paged", block_size=16
    )
    runner = ModelRunner(loaded.model, cache, shape, SequenceAngles(loaded.model))
    prompts = [[5, 6, 7], list(range(20, 40)), [9]]
    sequences = [Sequence(i, i, prompt, GenerationConfig(), max_tokens=8, seed=0) for i, prompt in enumerate(prompts)]
    for seq in sequences:
        assert cache.allocator.allocate(seq) == 0
        runner.execute([ScheduledSequence(seq, len(seq.tokens), True)])
        seq.computed = len(seq.tokens)
        seq.tokens.append(11)
        assert cache.allocator.extend(seq)
    step = [ScheduledSequence(seq, 1, True) for seq in sequences]
    static = StaticDecodeBatch(8, cache, CPU)
    static.fill(step)
    logits, layers = static.forward(loaded.model)
    assert layers == shape.layers
    expected = runner.execute(step)
    torch.testing.assert_close(logits[:3], expected.logits, rtol=1e-4, atol=1e-4)
    # A smaller batch afterwards: the rows that were its predecessors' are padding again.
    static.fill(step[:1])
    again, _ = static.forward(loaded.model)
    torch.testing.assert_close(again[:1], expected.logits[:1], rtol=1e-4, atol=1e-4)
