"""Texts without turns, for completion: facts, descriptions of made-up things, little stories."""

from __future__ import annotations

from tools.train_tiny_chat.corpus import words
from tools.train_tiny_chat.corpus.attributes import CHINESE, ENGLISH
from tools.train_tiny_chat.corpus.conversation import Example, PlainText
from tools.train_tiny_chat.corpus.docs import doc_pieces
from tools.train_tiny_chat.corpus.draw import Draw
from tools.train_tiny_chat.corpus.gateway_facts import GATEWAY_FACTS
from tools.train_tiny_chat.corpus.general_facts import GENERAL_FACTS
from tools.train_tiny_chat.corpus.made_up_sources import entity, state
from tools.train_tiny_chat.corpus.source_task import stop

_STORY = [
    "(Once upon a time|Long ago|One day), a {a} {x} lived in a {n} near {c}.",
    "(Every morning|Every day|In the evening) the {x} went to the {m} and looked for {f}.",
    "There it met a {y} that was called {p}.",
    '"(Good morning|Hello|Good day)", said {p}, "do you want to share my {f}?"',
    "The {x} (was glad|laughed|thought about it for a while) and said yes.",
    "From that day on they were friends, and (went home together|nobody was hungry again|the {n} was never quiet).",
]
_STORY_ZH = [
    "(从前|很久以前|有一天)，一只{x}住在{c}附近的{n}里。",
    "(每天早上|每天|傍晚)，{x}都去{m}找{f}。",
    "在那里它遇到了一只{y}，名字叫{p}。",
    "“(早上好|你好)，”{p}说，“想分享我的{f}吗？”",
    "{x}(很高兴|笑了|想了一会儿)，说好。",
    "从那天起它们成了朋友，(一起回家|再也不会挨饿)。",
]


def story(draw: Draw, *, zh: bool) -> str:
    pick = (
        (words.ZH_ANIMALS, words.ZH_NOUNS, words.ZH_FOODS, words.ZH_CITIES)
        if zh
        else (words.ANIMALS, words.NOUNS, words.FOODS, words.CITIES)
    )
    x, y = draw.some(pick[0], 2)
    n, m = draw.some(pick[1], 2)
    slots = {
        "x": x,
        "y": y,
        "n": n,
        "m": m,
        "f": draw.one(pick[2]),
        "c": draw.one(pick[3]),
        "a": draw.one(words.ADJECTIVES),
        "p": words.made_up_zh(draw) if zh else words.made_up(draw),
    }
    text = ("" if zh else " ").join(draw.expand(sentence) for sentence in (_STORY_ZH if zh else _STORY))
    for slot, value in slots.items():
        text = text.replace(f"{{{slot}}}", value)
    return text


def sample(draw: Draw) -> Example:
    zh = draw.chance(0.3)
    match draw.number(0, 3):
        case 0:
            language = "zh" if zh else "en"
            subject = entity(draw, language)
            kinds = draw.some(list(CHINESE if zh else ENGLISH), 4)
            text = ("" if zh else " ").join(state(draw, subject, kind, language).text + stop(language) for kind in kinds)
        case 1:
            facts = draw.some(GATEWAY_FACTS + GENERAL_FACTS, 4)
            text = ("" if zh else " ").join(fact.text("zh" if zh else "en") for fact in facts)
        case 2:
            text = draw.one(doc_pieces()).text
        case _:
            text = story(draw, zh=zh)
    return PlainText("plain text", text)
