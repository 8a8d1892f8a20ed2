"""How soon the second turn of a long prompt begins, by where its prefix is: in its slot, in memory, on disk after a restart.

    python -m benchmarks.engine.kept_prefixes --model FOLDER --tokens 30000

One agent, in this process, over the manager of models. Its first turn is computed whole. Each later one is that prompt with 200 other
tokens behind it: while its slot is there; after others needed the slot; after its model was unloaded and loaded again; and after all was
closed, by a manager that has nothing but the files, which the system has been told to forget before. Times are from submitting to the first
token; loading the model is not in them. Without `--model`, a Llama of random weights is made, of SmolLM2's width.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.support.tables import machine, markdown_table
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings, MemorySettings
from mm_gateway.core import GenerationConfig, Usage
from mm_gateway.runtime.real_model_manager import RealModelManager

TAIL = 200
OTHER = 300
VOCABULARY = 4096
FEW = GenerationConfig(max_new_tokens=2, temperature=0, ignore_eos=True)


def random_model(work: Path, layers: int, context: int) -> Path:
    """The folder of a model as wide as SmolLM2-135M, with random weights."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from mm_gateway.configuration.loader import load_settings
    from mm_gateway.configuration.model_entries import BUILT_IN_PREFIX

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=576,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=1536,
        max_position_embeddings=context,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).float().save_pretrained(work / "model")
    entries = load_settings(None, None, {}).models.values()
    tiny = next(entry.path for entry in entries if entry.path is not None and "builtin_models" in entry.path)
    assert tiny is not None, f"no entry with path: {BUILT_IN_PREFIX}NAME"
    AutoTokenizer.from_pretrained(tiny).save_pretrained(work / "model")
    return work / "model"


def tokens_of(seed: int, count: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(10, 400) for _ in range(count)]


class Agent:
    """Args:
    config, settings: of the model and its engine. tokens: of the first turn.
    """

    def __init__(self, config: ModelConfig, settings: EngineSettings, tokens: int) -> None:
        self._config, self._settings = config, settings
        self._first = tokens_of(0, tokens)
        self._turn = 0
        self.manager = self._new_manager()

    def _new_manager(self) -> RealModelManager:
        return RealModelManager.from_settings(MemorySettings(), self._settings)

    def turn(self) -> tuple[float, int]:
        """Seconds to the first token of the next turn, and how many of its tokens were not computed."""
        self._turn += 1
        return self._ask(self._first if self._turn == 1 else self._first + tokens_of(self._turn, TAIL))

    def others(self) -> None:
        """As many as there are slots."""
        for seed in range(2):
            self._ask(tokens_of(1000 + seed, OTHER))

    def unload(self) -> None:
        self.manager.unload_model(self._config.model_name)

    def restart(self) -> None:
        self.manager.close()
        folder = Path(self._settings.prefix_cache_folder or "")
        for file in folder.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self.manager = self._new_manager()

    def _ask(self, prompt: list[int]) -> tuple[float, int]:
        with self.manager.acquire(self._config).result() as lease:
            generation = lease.engine.submit([prompt], FEW)
            submitted = time.monotonic()
            usage = next(event for event in generation if isinstance(event, Usage))
            assert generation.first_token is not None
            return generation.first_token - submitted, usage.cached_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder, or what models.yaml takes as path; by default random weights")
    parser.add_argument("--layers", type=int, default=30, help="of random weights")
    parser.add_argument("--dtype", default="fp16", choices=("fp32", "fp16", "bf16"))
    parser.add_argument("--tokens", type=int, default=30_000, help="of the first turn")
    parser.add_argument("--folder", type=Path, help="where files are kept, on the disk that is to be measured; by default a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        path = args.model or str(random_model(Path(work), args.layers, args.tokens + 1024))
        config = ModelConfig(model_name="agent", path=path, device="cpu", dtype=args.dtype)
        folder = str(args.folder or Path(work) / "prefixes")
        agent = Agent(config, EngineSettings(max_running=1, prefix_cache_bytes=8 * 2**30, prefix_cache_folder=folder), args.tokens)
        nothing: Callable[[], None] = lambda: None  # noqa: E731 - the name says what is done
        cases: dict[str, Callable[[], None]] = {
            "computed": nothing,
            "in its slot": nothing,
            "in memory, others had the slot": agent.others,
            "in memory, the model was unloaded": agent.unload,
            "on disk, after a restart": agent.restart,
        }
        rows: list[list[object]] = []
        first = 0.0
        for where, before in cases.items():
            before()
            ttft_s, cached = agent.turn()
            first = first or ttft_s
            rows.append([where, args.tokens + (TAIL if rows else 0), cached, f"{ttft_s:.2f}", f"{ttft_s / first:.3f}"])
            print(rows[-1], flush=True)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        agent.manager.close()
    print(f"{machine()}; files of {size / 1e6:.0f} MB\n")
    print(markdown_table(["prefix", "prompt tokens", "not computed", "TTFT s", "of the first"], rows))


if __name__ == "__main__":
    main()
