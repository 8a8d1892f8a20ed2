"""Repeating, picking and spelling random text: the base of answering from sources."""

from __future__ import annotations

from tools.train_tiny_chat.corpus.conversation import Example, chat
from tools.train_tiny_chat.corpus.draw import Draw
from tools.train_tiny_chat.corpus.words import (
    ANIMALS,
    CITIES,
    COLOURS,
    FOODS,
    JOBS,
    THINGS,
    ZH_FOODS,
    ZH_THINGS,
    amount,
    code,
    made_up,
    made_up_zh,
    person,
    person_zh,
)

_REPEAT = [
    "(Repeat|Say|Copy|Write|Echo): {x}",
    "(Please |)(repeat|say|echo|write) (this|after me|exactly this): {x}",
    '(Repeat|Copy) the (text|words|line) between the quotes: "{x}"',
    'Say "{x}"',
    "(Reply|Answer|Respond) (only |)with: {x}",
    '(Can|Could) you (write|repeat) "{x}"(, please|)?',
    "{x}\n\n(Repeat|Copy) the (line|text) above.",
    "Just (say|write) {x}",
]
_REPEAT_ZH = [
    "请重复：{x}",
    "(重复|复述|说)：{x}",
    "(请|)(说|写|重复)“{x}”",
    "(请|)跟我说：{x}",
    "(只|)回复：{x}",
    "(把|请把)下面的(话|文字)(重复|抄)一遍：{x}",
    "照着写：{x}",
]
_PAIRS = [
    "What (is|was) the {key} of {name}?",
    "(Tell me|Give me) the {key} of {name}.",
    "Which {key} (belongs to|goes with|does have) {name}?",
    "{name}: {key}?",
    "And the {key} of {name}?",
    "(Look up|Find) {name}'s {key}.",
    "I need {name}'s {key}.",
]
_KEYS = ["code", "number", "colour", "owner", "price", "size", "city", "password", "value", "age", "weight", "job", "food", "address"]


def words_of(draw: Draw, low: int, high: int) -> str:
    pool = [
        lambda: draw.one(ANIMALS + FOODS + THINGS + COLOURS),
        lambda: made_up(draw),
        lambda: made_up(draw).lower(),
        lambda: amount(draw),
    ]
    return " ".join(draw.one(pool)() for _ in range(draw.number(low, high)))


def _value(draw: Draw, key: str) -> str:
    match key:
        case "colour":
            return draw.one(COLOURS)
        case "owner":
            return person(draw)
        case "city":
            return draw.one(CITIES) if draw.chance(0.3) else made_up(draw)
        case "job":
            return draw.one(JOBS)
        case "food":
            return draw.one(FOODS)
        case "password" | "code" | "address":
            return code(draw)
        case _:
            return amount(draw)


def repeat(draw: Draw) -> Example:
    if draw.chance(0.25):
        # Any character at all: rare ones are several tokens.
        text = (
            "".join(chr(draw.number(0x4E00, 0x9FA5)) for _ in range(draw.number(1, 4)))
            if draw.chance(0.3)
            else "".join(draw.one([made_up_zh, person_zh, lambda d: d.one(ZH_THINGS + ZH_FOODS)])(draw) for _ in range(draw.number(1, 4)))
        )
        return chat("copying", draw.wording(_REPEAT_ZH).replace("{x}", text), text)
    text = words_of(draw, 1, 9) if draw.chance(0.7) else code(draw)
    return chat("copying", draw.wording(_REPEAT).replace("{x}", text), text)


def table(draw: Draw) -> Example:
    """Several names with values; one or several are asked for."""
    key = draw.one(_KEYS)
    names: list[str] = []
    while len(names) < draw.number(2, 9):
        names.append(draw.one([made_up, made_up, code, lambda d: d.one(ANIMALS + THINGS)])(draw))
    names = list(dict.fromkeys(names))
    values = [_value(draw, key) for _ in names]
    line = draw.one(
        [
            "{n}: {v}",
            "{n} = {v}",
            "{n} - {v}",
            "{n} has the {k} {v}.",
            "The {k} of {n} is {v}.",
            "{n},{v}",
            "| {n} | {v} |",
            "{v} is the {k} of {n}.",
        ]
    )
    separator = " " if line.endswith(".") and draw.chance(0.6) else "\n"
    rows = separator.join(line.replace("{n}", n).replace("{v}", v).replace("{k}", key) for n, v in zip(names, values, strict=True))
    turns: list[str] = []
    for at, asked in enumerate(draw.some(range(len(names)), min(len(names), draw.one([1, 2, 3])))):
        question = draw.wording(_PAIRS).replace("{key}", key).replace("{name}", names[asked])
        turns += [f"{rows}\n\n{question}" if at == 0 else question, f"The {key} of {names[asked]} is {values[asked]}."]
    return chat("copying", *turns)


def sample(draw: Draw) -> Example:
    return repeat(draw) if draw.chance(0.4) else table(draw)
