"""Lines of random words that come again: the plainest lesson in looking back, without which nothing is copied."""

from __future__ import annotations

from tools.train_tiny_chat.corpus import words
from tools.train_tiny_chat.corpus.conversation import Example, PlainText
from tools.train_tiny_chat.corpus.draw import Draw


def sample(draw: Draw) -> Example:
    """The same line two to four times, or several lines of which some come again in another order."""
    if draw.chance(0.5):
        text = line(draw, draw.number(4, 24))
        return PlainText("repetition", draw.one([" ", "\n", " | "]).join([text] * draw.one([2, 2, 3, 4])))
    lines = [line(draw, draw.number(2, 6)) for _ in range(draw.number(2, 8))]
    return PlainText("repetition", "\n".join([*lines, *draw.shuffled(lines)]))


def line(draw: Draw, size: int) -> str:
    kind = draw.number(0, 4)
    if kind == 0:
        return "".join(
            draw.one([words.made_up_zh, words.person_zh, lambda d: d.one(words.ZH_THINGS + words.ZH_FOODS)])(draw)
            for _ in range(size // 2 + 1)
        )
    makers = [
        words.made_up,
        lambda d: words.made_up(d).lower(),
        words.code,
        words.amount,
        lambda d: d.one(words.THINGS + words.ADJECTIVES + words.NOUNS),
    ]
    if kind == 1:
        return " ".join(draw.one(makers)(draw) for _ in range(size))
    return " ".join(makers[draw.one([0, 1, 4, 4])](draw) for _ in range(size))
