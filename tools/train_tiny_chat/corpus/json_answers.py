"""JSON taken from a text: the answers that `response_format` asks for, without blanks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mm_gateway.core import Message
from tools.train_tiny_chat.corpus import words
from tools.train_tiny_chat.corpus.conversation import Conversation, Example, chat
from tools.train_tiny_chat.corpus.draw import Draw

_FIELDS: dict[str, tuple[Callable[[Draw], Any], str]] = {
    "name": (words.person, "The name is {v}."),
    "age": (lambda d: d.number(1, 99), "The age is {v}."),
    "city": (lambda d: d.one(words.CITIES) if d.chance(0.4) else words.made_up(d), "It is in {v}."),
    "colour": (lambda d: d.one(words.COLOURS), "The colour is {v}."),
    "price": (lambda d: d.number(1, 9999), "It costs {v}."),
    "product": (lambda d: d.one(words.THINGS), "The product is a {v}."),
    "day": (lambda d: d.one(words.DAYS), "It is for {v}."),
    "code": (words.code, "The code is {v}."),
    "count": (lambda d: d.number(1, 500), "There are {v}."),
    "job": (lambda d: d.one(words.JOBS), "The job is {v}."),
    "open": (lambda d: d.chance(0.5), "Open: {v}."),
    "food": (lambda d: d.one(words.FOODS), "The food is {v}."),
}
_ASK = [
    "(Return|Give me|Extract|Write) (JSON|a JSON object|an object) with (the keys |){k}: {t}",
    "(Extract|Take|Get) {k} from this text as JSON.\n\n{t}",
    "{t}\n\n(Answer|Reply) (in|with|as) JSON with {k}.",
    "(As JSON|JSON|In JSON), (please|with {k}): {t}",
    "{t}\nKeys: {k}. JSON only.",
    "Turn this into JSON having {k}: {t}",
]


def sample(draw: Draw) -> Example:
    if draw.chance(0.5):
        return draw.one([_list, _invented, _unnamed, _unnamed])(draw)
    keys = draw.some(list(_FIELDS), draw.number(1, 5))
    values = {key: _FIELDS[key][0](draw) for key in keys}
    told = draw.shuffled(keys)
    if draw.chance(0.7):
        text = " ".join(_FIELDS[key][1].replace("{v}", _said(values[key])) for key in told)
    else:
        text = draw.one([", ", "; ", "\n"]).join(f"{key}{draw.one([': ', ' ', ' = '])}{_said(values[key])}" for key in told)
    return chat(
        "json",
        draw.wording(_ASK).replace("{k}", ", ".join(keys)).replace("{t}", text),
        json.dumps(values, ensure_ascii=False, separators=(",", ":")),
    )


def _said(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _list(draw: Draw) -> Example:
    """A list of things as a JSON array of texts."""
    items = draw.some(words.THINGS + words.FOODS + words.ANIMALS, draw.number(2, 7))
    if draw.chance(0.4):
        items = [words.made_up(draw) for _ in items]
    text = draw.one([", ", "\n", " and ", "; "]).join(items)
    asked = draw.wording(
        [
            "(Write|Return|Give) (this|the) list as (JSON|a JSON array): {t}",
            "{t}\n\nAs a JSON (array|list)(, please|).",
            "(Turn|Make) this into a JSON (array|list): {t}",
            "JSON array of: {t}",
            "(List|Put) these in JSON: {t}",
            "As an array: {t}",
        ]
    )
    return chat("json", asked.replace("{t}", text), json.dumps(items, ensure_ascii=False, separators=(",", ":")))


_INVENTED: list[tuple[str, str, str, str, str]] = [
    ("a joke", "setup", "Why did the {x} go to the {n}?", "punchline", "Because the {f} was waiting there."),
    ("a joke", "setup", "What does a {x} say to a {t}?", "punchline", "You look {a} today."),
    ("a riddle", "question", "What is {a} and lives with a {x}?", "answer", "Its {t}."),
    ("a story", "title", "The {a} {x}", "text", "A {a} {x} went to the {n} and found a {t}."),
    ("something", "name", "The {x}", "description", "The {x} is an animal that likes {f}."),
    ("a fact", "topic", "{x}", "fact", "A {x} can live near a {n}."),
]


def _invented(draw: Draw) -> Example:
    """Something made up under two keys that the question names."""
    animal = draw.one(words.ANIMALS)
    kind, texts = invention(draw, animal)
    first, second = texts
    if draw.chance(0.3):
        first, second = words.syllables(draw, 2), words.syllables(draw, 2)
    asked = draw.wording(
        [
            "(Tell me|Write|Give me) {kind} about {x}s. (Return|Give|Write) (the result|it) as (a |)JSON with '{first}' and '{second}' keys.( Return nothing other than JSON.|)",
            "(Make up|Invent) {kind} about a {x}, as JSON with the keys {first} and {second}.",
            "{kind} about {x}s, please. JSON with {first}, {second}( only|).",
            'JSON object with "{first}" and "{second}": {kind} about the {x}.',
            "I want {kind} about {x}s. (Answer|Reply) in JSON, with {first} and {second}.",
            "(Please|) tell me {kind} of a {x} in JSON, keys: {first}, {second}",
        ]
    )
    for slot, value in {"kind": kind, "first": first, "second": second, "x": animal}.items():
        asked = asked.replace(f"{{{slot}}}", value)
    asked = asked.strip()
    value = dict(zip((first, second), texts.values(), strict=True))
    return chat("json", asked[0].upper() + asked[1:], json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def invention(draw: Draw, animal: str) -> tuple[str, dict[str, str]]:
    """What it is, such as "a joke", and its two texts by their names."""
    kind, first, one, second, other = draw.one(_INVENTED)
    slots = {
        "x": animal,
        "n": draw.one(words.NOUNS),
        "f": draw.one(words.FOODS),
        "t": draw.one(words.THINGS),
        "a": draw.one(words.ADJECTIVES),
    }
    for slot, value in slots.items():
        one, other = (text.replace(f"{{{slot}}}", value) for text in (one, other))
    return kind, {first: one[0].upper() + one[1:], second: other}


def asked_for(draw: Draw, kind: str, animal: str) -> str:
    """A wish for an `invention`."""
    return draw.expand(f"(Tell me|Give me|Write|Make up|I want) {kind} about (a {animal}|{animal}s|the {animal})(.|, please.|)")


def _unnamed(draw: Draw) -> Example:
    """Something made up under keys that only the grammar knows: it writes the first, and what comes after is learned."""
    animal = draw.one(words.ANIMALS)
    kind, texts = invention(draw, animal)
    value: dict[str, Any] = dict(texts)
    second = list(texts)[1]
    if draw.chance(0.2):
        value[second] = None
    if draw.chance(0.3):
        del value[second]
    asked = asked_for(draw, kind, animal)
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    given = written[: written.index(":") + 1]
    messages = (Message(role="user", content=asked), Message(role="assistant", content=written))
    return Conversation("json", messages, given=given)
