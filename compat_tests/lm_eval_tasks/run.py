"""Runs the tasks of this folder in process and through a gateway; prints what each request scored as JSON.

Arguments: address of the gateway, name of the model there, folder of its checkpoint. To be run in this folder.
"""

# Its libraries are in an environment of its own.
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import sys
from typing import Any

import lm_eval
import torch
from lm_eval.tasks import TaskManager
from transformers.models.llama.modeling_llama import LlamaRMSNorm

TASKS = ["gateway_choice", "gateway_perplexity", "gateway_generate"]


def responses(model: str, arguments: dict[str, Any], tasks: list[str]) -> dict[str, list[Any]]:
    """Task -> the responses to its requests, document after document: (log-likelihood, greedy), or a log-likelihood, or a text."""
    results = lm_eval.simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=tasks,
        task_manager=TaskManager(include_path=".", include_defaults=False),
        batch_size=4,
        bootstrap_iters=0,
    )
    assert results is not None
    documents = {task: sorted(samples, key=lambda sample: sample["doc_id"]) for task, samples in results["samples"].items()}
    return {task: [sample["filtered_resps"] for sample in samples] for task, samples in documents.items()}


def norms_of_any_precision() -> None:
    """transformers computes Llama's norms in fp32 whatever the type of the model."""

    def forward(self: LlamaRMSNorm, hidden_states: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)

    LlamaRMSNorm.forward = forward


def main(address: str, model: str, folder: str) -> None:
    served = {"base_url": f"{address}/v1/completions", "model": model, "tokenizer": folder, "tokenizer_backend": "huggingface"}
    in_process = {"pretrained": folder, "device": "cpu"}
    found = {
        "in process": responses("hf", {**in_process, "dtype": "float32"}, TASKS),
        "tokens": responses("local-completions", {**served, "tokenized_requests": True, "num_concurrent": 4}, TASKS),
        "text": responses("local-completions", {**served, "tokenized_requests": False}, ["gateway_choice", "gateway_generate"]),
    }
    norms_of_any_precision()
    found["exact"] = responses("hf", {**in_process, "dtype": "float64"}, TASKS[:2])
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
