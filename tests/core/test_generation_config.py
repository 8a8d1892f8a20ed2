"""Callers in Python get the same ranges as clients over HTTP."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mm_gateway.core import GenerationConfig
from mm_gateway.core.limits import MAX_LOGIT_BIAS, MAX_STOP_CHARACTERS, MAX_STOP_STRINGS
from mm_gateway.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 2.5}, "temperature must be between 0 and 2, got 2.5"),
        ({"temperature": math.nan}, "temperature must be between 0 and 2, got nan"),
        ({"top_p": 0}, "top_p must be greater than 0 and at most 1, got 0"),
        ({"top_k": -2}, "top_k must be at least -1, got -2"),
        ({"seed": 2**64}, f"seed must be between {-(2**63)} and {2**64 - 1}, got {2**64}"),
        ({"n": 129}, "n must be between 1 and 128, got 129"),
        ({"logprobs": 21}, "logprobs must be between 0 and 20, got 21"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be greater than 0 and at most 10, got 0.0"),
        ({"stop": ("a", "")}, "stop[1] must have between 1 and 1024 characters, got 0"),
        ({"stop": ("a" * (MAX_STOP_CHARACTERS + 1),)}, "stop[0] must have between 1 and 1024 characters, got 1025"),
        ({"stop": ("a",) * (MAX_STOP_STRINGS + 1)}, "stop must have at most 64 entries, got 65"),
        ({"logit_bias": {5: 101.0}}, "logit_bias[5] must be between -100 and 100, got 101.0"),
        ({"logit_bias": dict.fromkeys(range(MAX_LOGIT_BIAS + 1), 1.0)}, "logit_bias must have at most 8192 entries, got 8193"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_value_out_of_range_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        GenerationConfig(**values)
    assert str(caught.value) == message
    assert caught.value.param == next(iter(values)) or str(caught.value.param).startswith("stop[")


def test_the_bounds_themselves_are_allowed() -> None:
    GenerationConfig(temperature=0, top_p=1, top_k=-1, min_p=1.0, seed=2**64 - 1, n=128, logprobs=20, repetition_penalty=10)
    GenerationConfig(temperature=2, top_p=1e-9, seed=-(2**63), max_new_tokens=0, prompt_logprobs=0, stop=("a",) * MAX_STOP_STRINGS)
