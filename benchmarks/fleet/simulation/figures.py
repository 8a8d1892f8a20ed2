"""How fast machines are, and what models take of them. Each figure says where it is from: measured here, or assumed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """One class of replicas.

    Attributes:
        memory_bytes: for models and their KV caches. read_bytes_per_s: at which decoding reads weights. flops: of reading prompts.
        load_bytes_per_s: from a file to a model that answers; load_s: beside that. step_s: of a decode step beside reading the weights.
        beside: what each further sequence of a batch adds to a step, as a share of the step of one.
        bytes_per_parameter: of a model whose family says no other.
    """

    name: str
    memory_bytes: float
    read_bytes_per_s: float
    flops: float
    load_bytes_per_s: float
    load_s: float
    step_s: float
    beside: float
    bytes_per_parameter: float


GPU_80GB = Machine(
    "GPU, 80 GB",
    memory_bytes=76e9,
    read_bytes_per_s=0.7 * 3.35e12,  # assumed: 0.7 of the bandwidth in NVIDIA's data sheet of the H100 SXM
    flops=0.5 * 989e12,  # assumed: half of the dense bf16 rate in the same sheet
    load_bytes_per_s=2e9,  # assumed: local NVMe
    load_s=3.0,  # assumed: captured graphs, warming up
    step_s=3e-3,  # assumed: launches and sampling
    beside=0.02,  # assumed
    bytes_per_parameter=2,
)
CPU_64GB = Machine(
    "CPU, 64 GB",
    memory_bytes=56e9,
    # Measured on two cores (docs/benchmarks.md, SmolLM2-135M in fp16: 73 tok/s of 0.27 GB, 737 tok/s of a prompt), assumed to hold
    # for each two of 32 cores as long as the memory gives 200 GB/s.
    read_bytes_per_s=200e9,
    flops=16 * 737 * 2 * 135e6,
    load_bytes_per_s=1e9,
    load_s=0.5,
    step_s=1e-3,
    beside=0.15,  # measured: 13.7 ms a step of one sequence, 77 ms of 32
    bytes_per_parameter=1,
)


@dataclass(frozen=True)
class Family:
    """Models of one size. kv_bytes: of a token's keys and values, in 16 bits. few_bits: bytes a parameter where it is served in fewer."""

    name: str
    parameters: float
    kv_bytes: int
    models: int
    few_bits: float | None = None


FAMILIES = (
    Family("SmolLM2-135M", 0.135e9, 23_040, 10),
    Family("Qwen2.5-0.5B", 0.494e9, 12_288, 20),
    Family("Qwen2.5-1.5B", 1.54e9, 28_672, 30),
    Family("Qwen2.5-3B", 3.09e9, 36_864, 30),
    Family("Qwen2.5-7B", 7.62e9, 57_344, 40),
    Family("Llama-3.1-8B", 8.03e9, 131_072, 30),
    Family("Qwen2.5-14B", 14.8e9, 196_608, 20),
    Family("Qwen2.5-32B, 8 bits", 32.8e9, 262_144, 10, 1.0),
    Family("Qwen2.5-32B", 32.8e9, 262_144, 6),
    Family("Llama-3.1-70B, 8 bits", 70.6e9, 327_680, 4, 1.0),
)
"""By the shapes in their config.json; 200 models together, 0.27 to 71 GB."""
SMALL_FAMILIES = (
    Family("SmolLM2-135M", 0.135e9, 23_040, 60),
    Family("Qwen2.5-0.5B", 0.494e9, 12_288, 60),
    Family("Qwen2.5-1.5B", 1.54e9, 28_672, 50),
    Family("Qwen2.5-3B", 3.09e9, 36_864, 30),
)
"""What a CPU answers with while somebody waits."""


@dataclass(frozen=True)
class ModelFigures:
    """One model on one class of machines.

    Attributes:
        key: of it. bytes: of its weights. kv_tokens: that its KV cache has room for. step_s: of a decode step of one sequence.
        token_s: of a prompt. load_s: until it answers.
    """

    key: int
    family: str
    bytes: float
    kv_bytes: int
    kv_tokens: int
    step_s: float
    token_s: float
    load_s: float
    beside: float

    @property
    def need_bytes(self) -> int:
        return int(self.bytes + self.kv_tokens * self.kv_bytes)

    def step(self, sequences: int) -> float:
        """Seconds of a decode step of so many."""
        return self.step_s * (1 + self.beside * (sequences - 1))


def on(machine: Machine, family: Family, key: int) -> ModelFigures:
    """A model of a family on a machine. Its KV cache gets a third of its weights, 2 GB at least, and what is left at most."""
    size = family.parameters * (family.few_bits or machine.bytes_per_parameter)
    room = min(max(size / 3, 2e9), machine.memory_bytes - size)
    return ModelFigures(
        key,
        family.name,
        size,
        family.kv_bytes,
        int(room / family.kv_bytes),
        size / machine.read_bytes_per_s + machine.step_s,
        2 * family.parameters / machine.flops,
        size / machine.load_bytes_per_s + machine.load_s,
        machine.beside,
    )
