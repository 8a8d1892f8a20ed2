"""What it costs to try a grammar out in a process of its own before it is compiled, and what one costs that came before.

python -m benchmarks.engine.grammar_trials
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

from llguidance import LLMatcher

from benchmarks.support.tables import ROOT
from mm_gateway.core import Grammar
from mm_gateway.runtime.checkpoints.tokenizer import load_tokenizer
from mm_gateway.runtime.grammars.measuring import check_size
from mm_gateway.runtime.grammars.sources import LIMITS, source_of
from mm_gateway.runtime.grammars.trials import GrammarTrials
from mm_gateway.runtime.sampling.structured_output import GrammarCompiler

MODEL = ROOT / "mm_gateway/builtin_models/tiny_chat"
ROUNDS = 50


def person(fields: int, number: int) -> Grammar:
    """A schema of so many fields; `number` makes it one that was not seen before."""
    properties: dict[str, Any] = {f"field_{i}": {"type": "string", "maxLength": 40} for i in range(fields - 2)}
    properties |= {f"age_{number}": {"type": "integer", "minimum": 0}, "tags": {"type": "array", "items": {"type": "string"}}}
    return Grammar("json_schema", json.dumps({"type": "object", "properties": properties, "required": list(properties)}))


def median_ms(call: Callable[[int], object]) -> float:
    times = []
    for number in range(ROUNDS):
        started = time.perf_counter()
        call(number)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def main() -> None:
    tokenizer = load_tokenizer(MODEL, name="tiny-chat", trust_remote_code=False)
    compiler = GrammarCompiler(tokenizer, len(tokenizer), frozenset({tokenizer.eos_token_id}))  # type: ignore[arg-type]
    trials = GrammarTrials()
    trials.check(Grammar("regex", "a"))
    compiler.compile(Grammar("regex", "a"))
    ll_tokenizer = compiler._ll_tokenizer
    assert ll_tokenizer is not None
    print(platform.processor() or platform.machine())
    print("| fields | measure | try out | compile here | again |\n| --- | --- | --- | --- | --- |")
    for fields in (3, 10, 50):
        measure = median_ms(lambda number, fields=fields: check_size(person(fields, number)))
        trial = median_ms(lambda number, fields=fields: trials.check(person(fields, number))) - measure
        compiled = median_ms(lambda number, fields=fields: LLMatcher(ll_tokenizer, source_of(person(fields, number)), limits=LIMITS))
        compiler.compile(person(fields, 0))
        again = median_ms(lambda _, fields=fields: compiler.compile(person(fields, 0)))
        print(f"| {fields} | {measure:.2f} ms | {trial:.2f} ms | {compiled:.2f} ms | {again:.2f} ms |")
    trials.close()


if __name__ == "__main__":
    main()
