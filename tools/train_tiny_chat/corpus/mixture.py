"""The stream of training examples: which skill comes how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tools.train_tiny_chat.corpus import (
    arithmetic,
    asking,
    copying,
    fallback,
    follow_ups,
    json_answers,
    lessons,
    plain_text,
    repetition,
    sources,
    tools,
)
from tools.train_tiny_chat.corpus.conversation import Example
from tools.train_tiny_chat.corpus.draw import Draw


class Skill(NamedTuple):
    """share: of all examples; early: in the first part of the training, where copying is learned, on which much else builds."""

    name: str
    share: float
    early: float
    sample: Callable[[Draw], Example]


SKILLS = [
    Skill("repetition", 3, 25, repetition.sample),
    Skill("gateway", 45, 9, asking.gateway),
    Skill("general", 5, 4, asking.general),
    Skill("small talk", 4, 2, asking.small_talk),
    Skill("arithmetic", 10, 2, arithmetic.sample),
    Skill("follow-ups", 12, 10, follow_ups.sample),
    Skill("copying", 10, 25, copying.sample),
    Skill("sources", 75, 10, sources.sample),
    Skill("lessons", 11, 5, lessons.sample),
    Skill("tools", 8, 3, tools.sample),
    Skill("json", 4, 3, json_answers.sample),
    Skill("fallback", 3, 1, fallback.sample),
    Skill("plain text", 1, 1, plain_text.sample),
]


def examples(seed: int, *, early: bool = False) -> Iterator[Example]:
    """Training examples without end; the same seed gives the same ones."""
    draw = Draw(seed)
    shares = [skill.early if early else skill.share for skill in SKILLS]
    while True:
        yield draw.random.choices(SKILLS, shares)[0].sample(draw)
