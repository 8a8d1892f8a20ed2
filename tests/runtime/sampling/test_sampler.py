"""Sampling against plain, slow definitions of what each parameter means."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from mm_gateway.core import GenerationConfig
from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.sampling.draws import draw_free, draw_truncated
from mm_gateway.runtime.sampling.noise import gumbel_noise, noise_keys
from mm_gateway.runtime.sampling.sampler import Sampler
from mm_gateway.runtime.scheduling.sequence import Sequence

VOCABULARY = 1000
CPU = torch.device("cpu")


def sequence(id: int, *, seed: int = 0, prompt: list[int] | None = None, output: list[int] | None = None, **config: Any) -> Sequence:
    seq = Sequence(id, id, prompt or [1], GenerationConfig(**config), max_tokens=10, seed=seed)
    seq.tokens += output or []
    return seq


def logits(rows: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * scale


def draw(values: torch.Tensor, *sequences: Sequence) -> list[int | None]:
    return [drawn.token for drawn in Sampler(VOCABULARY, CPU, max_running=64).sample(values.clone(), list(sequences))]


def test_greedy_takes_the_largest() -> None:
    values = logits(3)
    assert draw(values, *[sequence(i, temperature=0) for i in range(3)]) == values.argmax(-1).tolist()


def test_draws_follow_the_distribution() -> None:
    values = torch.full((1, VOCABULARY), -torch.inf)
    values[0, [3, 500, 999]] = torch.tensor([0.5, 0.3, 0.2]).log()
    rows = 4000
    drawn = Counter(draw(values.expand(rows, -1), *[sequence(i, seed=i) for i in range(rows)]))
    assert {token: round(count / rows, 1) for token, count in drawn.items()} == {3: 0.5, 500: 0.3, 999: 0.2}


@pytest.mark.parametrize("config", [{}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.02, "presence_penalty": 1.0}])
def test_a_draw_does_not_depend_on_its_neighbours(config: dict[str, Any]) -> None:
    values = logits(1)
    alone = draw(values, sequence(0, seed=42, **config))
    crowd = [sequence(i + 1, seed=i, temperature=i / 10) for i in range(12)]
    together = draw(torch.cat([logits(12, 5), values]), *crowd, sequence(0, seed=42, **config))
    assert together[-1] == alone[0]


def test_noise_depends_on_seed_position_and_token_alone() -> None:
    keys = noise_keys([(seed, position) for seed in (1, 2) for position in (0, 1)])
    whole = gumbel_noise(keys, torch.arange(500))
    assert torch.equal(gumbel_noise(keys[2:3], torch.tensor([[7, 400]])), whole[2:3, [7, 400]])
    assert len(whole.unique()) > 0.99 * whole.numel()


def test_noise_is_standard_gumbel_and_independent() -> None:
    noise = gumbel_noise(noise_keys([(seed, seed % 7) for seed in range(1000)]), torch.arange(1000)).double()
    uniform = torch.exp(-torch.exp(-noise))
    counts = torch.histc(uniform, 64, 0, 1)
    assert ((counts - counts.mean()).square() / counts.mean()).sum() < 63 + 5 * (2 * 63) ** 0.5  # chi-squared
    for one, other in ((uniform[:, 1:], uniform[:, :-1]), (uniform[1:], uniform[:-1]), (uniform[:, 256:], uniform[:, :-256])):
        correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
        assert abs(correlation) < 5 / one.numel() ** 0.5


def test_free_draws_follow_a_large_distribution() -> None:
    row = logits(1, scale=2.0)[0]
    rows = 20_000
    drawn = torch.tensor([token for token in draw_free(row.expand(rows, -1), noise_keys([(seed, 3) for seed in range(rows)])).tolist()])
    expected = row.softmax(-1) * rows
    counts = torch.bincount(drawn, minlength=VOCABULARY)
    often = expected > 10
    chi_squared = ((counts - expected).square() / expected)[often].sum()
    assert chi_squared < often.sum() + 5 * (2 * often.sum()) ** 0.5


def test_rounding_errors_of_the_logits_hardly_change_a_draw() -> None:
    values = logits(2000)
    sequences = [sequence(i, seed=i) for i in range(2000)]
    nudged = values + torch.randn_like(values) * 1e-5
    same = sum(a == b for a, b in zip(draw(values, *sequences), draw(nudged, *sequences), strict=True))
    assert same >= 1998


def kept_by_definition(row: torch.Tensor, *, top_k: int, top_p: float, min_p: float) -> set[int]:
    """The tokens that may be drawn, the slow way."""
    order = row.argsort(descending=True)[: top_k or None]
    probabilities = row[order].softmax(-1)
    before = torch.cat([torch.zeros(1), probabilities.cumsum(-1)[:-1]])
    keep = (before < top_p) & (probabilities >= min_p * probabilities[0])
    return set(order[keep].tolist())


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"), [(5, 1.0, 0.0), (0, 0.5, 0.0), (0, 0.999, 0.0), (50, 0.8, 0.0), (0, 1.0, 0.1), (20, 0.95, 0.05)]
)
@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_truncation_keeps_exactly_what_its_definition_says(top_k: int, top_p: float, min_p: float, scale: float) -> None:
    row = logits(1, scale=scale)[0]
    expected = kept_by_definition(row, top_k=top_k, top_p=top_p, min_p=min_p)
    rows = 3000
    keys = noise_keys([(seed, 0) for seed in range(rows)])
    drawn = draw_truncated(
        row.expand(rows, -1), keys, torch.full((rows,), top_k), torch.full((rows,), top_p), torch.full((rows,), min_p), candidates=32
    )
    found = set(drawn.tolist())
    assert found <= expected
    probabilities = torch.softmax(row[list(expected)], -1)
    likely = {token for token, p in zip(expected, probabilities.tolist(), strict=True) if p > 10 / rows}
    assert likely <= found


def test_penalties_and_bias_follow_their_formulas() -> None:
    values = logits(1)
    config = {"frequency_penalty": 0.5, "presence_penalty": 0.25, "repetition_penalty": 1.5, "logit_bias": {4: 2.0, 7: -1.0}}
    expected = values[0].clone()
    for token in {10, 11, 12}:  # prompt and output
        expected[token] = expected[token] / 1.5 if expected[token] > 0 else expected[token] * 1.5
    expected[11] -= 0.5 * 2 + 0.25
    expected[12] -= 0.5 * 1 + 0.25
    expected[4] += 2.0
    expected[7] -= 1.0
    changed = values.clone()
    Sampler(VOCABULARY, CPU, max_running=4).sample(changed, [sequence(0, prompt=[10], output=[11, 11, 12], temperature=0, **config)])
    torch.testing.assert_close(changed[0], expected)


def test_counts_grow_with_what_is_drawn_and_go_with_the_sequence() -> None:
    sampler = Sampler(VOCABULARY, CPU, max_running=1)
    values = torch.zeros(1, VOCABULARY)
    values[0, 5], values[0, 6] = 3.0, 2.5
    seq = sequence(0, temperature=0, presence_penalty=1.0)
    assert sampler.sample(values.clone(), [seq])[0].token == 5
    seq.tokens.append(5)
    assert sampler.sample(values.clone(), [seq])[0].token == 6
    sampler.forget(seq)
    assert sampler.sample(values.clone(), [sequence(1, temperature=0, presence_penalty=1.0)])[0].token == 5


def test_penalties_take_memory_for_running_sequences_alone_and_survive_preemption() -> None:
    sampler = Sampler(VOCABULARY, CPU, max_running=2)
    assert sampler.penalty_bytes == 2 * VOCABULARY * 3
    sequences = [sequence(i, temperature=0, presence_penalty=1.0, frequency_penalty=0.5, repetition_penalty=1.2) for i in range(5)]
    values = logits(2, scale=0.5)
    for turn in range(20):  # two of five run at a time, so all are preempted again and again
        pair = [sequences[turn % 5], sequences[(turn + 2) % 5]]
        drawn = sampler.sample(values.clone(), pair)
        counted_anew = Sampler(VOCABULARY, CPU, max_running=2).sample(values.clone(), pair)
        assert [each.token for each in drawn] == [each.token for each in counted_anew]
        for seq, each in zip(pair, drawn, strict=True):
            assert each.token is not None
            seq.tokens.append(each.token)
    assert all(len(set(seq.tokens)) > 2 for seq in sequences)


def test_log_probabilities_are_the_models_own() -> None:
    values = logits(2)
    expected = values.log_softmax(-1)
    sampler = Sampler(VOCABULARY, CPU, max_running=4)
    plain, biased = sampler.sample(
        values.clone(), [sequence(0, temperature=0, logprobs=0), sequence(1, temperature=0.1, top_k=3, logit_bias={9: 50.0}, logprobs=4)]
    )
    assert plain.scores and biased.scores
    assert plain.scores.logprob == pytest.approx(expected[0].max().item(), abs=1e-5)
    assert plain.scores.top == ()
    assert biased.token == 9
    assert biased.scores.logprob == pytest.approx(expected[1, 9].item(), abs=1e-5)
    assert [token for token, _ in biased.scores.top] == expected[1].topk(4).indices.tolist()


def test_a_row_of_nan_is_reported_and_spares_its_neighbours() -> None:
    values = logits(3)
    values[1, 4] = torch.nan
    sampler = Sampler(VOCABULARY, CPU, max_running=4)
    drawn = [result.token for result in sampler.sample(values.clone(), [sequence(i, seed=i) for i in range(3)])]
    assert drawn[1] is None
    assert drawn[0] == draw(values[:1], sequence(0, seed=0))[0]


@pytest.mark.parametrize("temperature", [1e-6, 1e-38, 5e-324])
@pytest.mark.parametrize("config", [{}, {"top_k": 5}, {"top_p": 0.5}])
def test_temperatures_that_fp32_cannot_divide_by_are_greedy(temperature: float, config: dict[str, Any]) -> None:
    values = logits(8)
    assert draw(values, *[sequence(i, seed=i, temperature=temperature, **config) for i in range(8)]) == values.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [float("nan"), float("inf"), -1e-38])
def test_a_temperature_that_is_no_number_of_its_range_is_refused(temperature: float) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        GenerationConfig(temperature=temperature)
    assert caught.value.param == "temperature"
