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
    sources,
    tools,
)
from tools.train_tiny_chat.corpus.conversation import Example
from tools.train_tiny_chat.corpus.draw import Draw


class Skill(NamedTuple):
    name: str
    share: float
    """Of all examples."""
    sample: Callable[[Draw], Example]


SKILLS = [
    Skill("gateway", 18, asking.gateway),
    Skill("general", 7, asking.general),
    Skill("small talk", 5, asking.small_talk),
    Skill("arithmetic", 5, arithmetic.sample),
    Skill("follow-ups", 11, follow_ups.sample),
    Skill("copying", 9, copying.sample),
    Skill("sources", 26, sources.sample),
    Skill("lessons", 8, lessons.sample),
    Skill("tools", 7, tools.sample),
    Skill("json", 3, json_answers.sample),
    Skill("fallback", 4, fallback.sample),
    Skill("plain text", 2, plain_text.sample),
]


def examples(seed: int) -> Iterator[Example]:
    """Training examples without end; the same seed gives the same ones."""
    draw = Draw(seed)
    shares = [skill.share for skill in SKILLS]
    while True:
        yield draw.random.choices(SKILLS, shares)[0].sample(draw)
