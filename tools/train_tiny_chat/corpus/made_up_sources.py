"""Sources about made-up things, and about who did what: only what is read there can be answered."""

from __future__ import annotations

from typing import NamedTuple

from mm_gateway.workflows.prompts import Language, Passage
from tools.train_tiny_chat.corpus import words
from tools.train_tiny_chat.corpus.attributes import CHINESE, ENGLISH
from tools.train_tiny_chat.corpus.draw import Draw
from tools.train_tiny_chat.corpus.events import Event, event
from tools.train_tiny_chat.corpus.framing import framed
from tools.train_tiny_chat.corpus.source_task import MORE, SourceTask, roughen, source_task, stop

# fmt: off
_TITLES = ["{e}", "About {e}", "{e} - overview", "{e} | Guide", "History of {e}", "{e}: facts", "docs/{c}.md", "Notes", "{c}", "{e} in numbers", "News", "Handbook: {e}"]
_TITLES_ZH = ["{e}", "关于{e}", "{e}简介", "{e}的历史", "{e}：概览", "笔记", "新闻", "手册", "{c}", "docs/{c}.md"]
_THINGS = ["the {adj} {noun} of {name}", "{name} {Noun}", "the {name} {noun}", "{name}", "{name}", "{name}", "`{code}`", "{code}", "{Noun} {name}", "{name} {number}", "{Word}", "the {word}", "the {adj} {word}", "{Word} {noun}", "{city} {Noun}", "{name} {word}"]
# fmt: on


class Statement(NamedTuple):
    """A sentence without its final stop, and how to ask for it."""

    entity: str
    attribute: str
    value: str
    text: str


def entity(draw: Draw, language: Language) -> str:
    if language == "zh":
        if draw.chance(0.12):
            return draw.one([words.made_up(draw), words.code(draw), f"`{words.code(draw)}`"])
        return words.made_up_zh(draw) + (draw.one(words.ZH_NOUNS) if draw.chance(0.6) else "")
    noun = draw.one(words.NOUNS)
    pattern = draw.one(_THINGS)
    slots = {
        "adj": draw.one(words.ADJECTIVES),
        "noun": noun,
        "word": (word := draw.one(words.ANIMALS + words.FOODS + words.THINGS)),
        "Word": word.capitalize(),
        "city": draw.one(words.CITIES),
        "Noun": noun.capitalize(),
        "name": words.made_up(draw),
        "code": words.code(draw),
        "number": str(draw.number(2, 99)),
    }
    return pattern.format(**slots)


def state(draw: Draw, subject: str, attribute: str, language: Language) -> Statement:
    kind = (ENGLISH if language == "en" else CHINESE)[attribute]
    value = kind.value(draw)
    text = draw.expand(draw.one(kind.statements)).replace("{e}", subject).replace("{v}", value)
    return Statement(subject, attribute, value, text[0].upper() + text[1:])


# fmt: off
_BEFORE = ["Today", "Since {year}", "In {city}", "In most years", "According to {person}", "As far as is known", "Of all of them", "At first sight", "In the {word} {noun}", "After the {word} came", "On {day}", "For many {word}s", "Contrary to what people say"]
_AFTER = [", as {person} wrote", " and was rebuilt in {year}", ", most of it in {city}", ", more than any other {noun}", " since {year}", ", and nobody knows why", " when the {word} is {adj}", " (see the {word})", ", which is {adj} for a {word}", ", about {number} in all", " until {year}", " and shows {number} {word}s", ", so that the {word} stays {adj}", " and has a {adj} {word}", "; the {noun} beside it does not", ", but only with a {word}"]
_BEFORE_ZH = ["如今，", "据说，", "自{year}年以来，", "在{city}，", "据{person}说，", "一般来说，", "和{word}不同，"]
_AFTER_ZH = ["，是当地最{adj}的", "，每年有{number}人参观", "，但很少有人知道", "，和{word}一样", "，直到{year}年", "，其中大部分在{city}", "（见{word}）", "，因此需要{word}"]
# fmt: on


def _longer(draw: Draw, statement: Statement, language: Language) -> Statement:
    """Within a longer sentence, whose other words do not matter."""
    zh = language == "zh"
    text = statement.text
    begins = text.casefold().startswith(statement.entity.casefold())
    if begins and draw.chance(0.3):
        text = draw.one(_BEFORE_ZH) + text if zh else f"{draw.one(_BEFORE)}, {statement.entity}{text[len(statement.entity) :]}"
    if text == statement.text or draw.chance(0.3):
        text += draw.one(_AFTER_ZH if zh else _AFTER if begins else [tail for tail in _AFTER if not tail.startswith(" and")])
    slots = {
        "year": str(draw.number(1402, 2024)),
        "number": words.amount(draw),
        "city": draw.one(words.ZH_CITIES if zh else words.CITIES),
        "person": words.person_zh(draw) if zh else words.person(draw),
        "word": draw.one(words.ZH_THINGS + words.ZH_FOODS + words.ZH_ANIMALS if zh else words.THINGS + words.FOODS + words.ANIMALS),
        "noun": draw.one(words.NOUNS),
        "adj": draw.one(["古老", "安静", "著名", "大"] if zh else words.ADJECTIVES),
        "day": draw.one(words.DAYS),
    }
    for slot, value in slots.items():
        text = text.replace(f"{{{slot}}}", value)
    return statement._replace(text=text)


def ask(draw: Draw, statement: Statement, language: Language) -> str:
    kind = (ENGLISH if language == "en" else CHINESE)[statement.attribute]
    counted = "".join(c for c in statement.value if not (c.isdigit() or c in ".,")).strip()
    if language == "zh":
        counted = counted.lstrip("名间本位棵家个")
    question = draw.question(kind.questions)
    if draw.split == "train" and draw.chance(0.3):
        question = framed(draw, question, language)
    return roughen(draw, question.replace("{e}", statement.entity).replace("{n}", counted))


def title(draw: Draw, subject: str, language: Language) -> str:
    pattern = draw.one(_TITLES_ZH if language == "zh" else _TITLES)
    text = pattern.replace("{e}", subject).replace("{c}", words.code(draw))
    return text[0].upper() + text[1:]


def made_up_task(draw: Draw, *, told: bool | None = None, asked: int | None = None, language: Language | None = None) -> SourceTask:
    """Sources about made-up things; the question asks for one statement or two, or for what none of them says."""
    language = language or ("zh" if draw.chance(0.33) else "en")
    attributes = list(ENGLISH if language == "en" else CHINESE)
    size = draw.one([1, 1, 2, 2, 2, 3, 3, 4, 5, 6])
    entities: list[str] = []
    while len(entities) < size:
        new = entity(draw, language)
        if not any(new in old or old in new for old in entities):
            entities.append(new)
    if size > 2 and draw.chance(0.3):  # two sources about the same thing
        entities[1] = entities[0]
    shared = draw.some(attributes, draw.one([1, 2, 3, 4]))
    longest = draw.one([1, 1, 2, 3, 5]) if size <= 4 else draw.one([1, 2, 3])
    told_of: set[tuple[str, str]] = set()
    bodies: list[list[Statement]] = []
    for subject in entities:
        mix = list(dict.fromkeys([*shared, *draw.some(attributes, 3)]))
        new_ones = [kind for kind in draw.shuffled(mix) if (subject, kind) not in told_of][: draw.number(1, longest)]
        told_of |= {(subject, kind) for kind in new_ones}
        stated = [state(draw, subject, kind, language) for kind in new_ones]
        stated = [_longer(draw, statement, language) if draw.chance(0.2) else statement for statement in stated]
        bodies.append(_told_together(draw, stated, language))
    passages = [
        Passage(title(draw, subject, language), _body(draw, body, language)) for subject, body in zip(entities, bodies, strict=True)
    ]
    if told is False or (told is None and draw.chance(0.12)):
        subject = draw.one(entities) if draw.chance(0.6) else entity(draw, language)
        return source_task(draw, _not_told_of(draw, subject, told_of, language), passages, language, [])
    everything = [(statement, number) for number, body in enumerate(bodies, 1) for statement in body]
    chosen = draw.some(everything, min(len(everything), asked or (2 if draw.chance(0.12) else 1)))
    question = _joined(draw, [ask(draw, statement, language) for statement, _ in chosen], language)
    later = [] if asked else draw.some(everything, min(len(everything), draw.number(0, MORE)))
    more = [(ask(draw, statement, language), [(statement.text, number)]) for statement, number in later]
    if later and draw.chance(0.25):
        more.insert(draw.number(0, len(more)), (_not_told_of(draw, draw.one(entities), told_of, language), []))
    return source_task(
        draw, question, passages, language, list(dict.fromkeys((statement.text, number) for statement, number in chosen)), more
    )


def _not_told_of(draw: Draw, subject: str, told_of: set[tuple[str, str]], language: Language) -> str:
    """A question about the thing that no source answers."""
    missing = [kind for kind in (ENGLISH if language == "en" else CHINESE) if (subject, kind) not in told_of]
    return ask(draw, state(draw, subject, draw.one(missing), language), language)


def _told_together(draw: Draw, statements: list[Statement], language: Language) -> list[Statement]:
    """Some in one sentence, and some that call the thing `it`, where a sentence about it went before."""
    told: list[Statement] = []
    for statement in statements:
        rest = statement.text[len(statement.entity) :].strip()
        if told and _begins(told[0]) and (its := _possessive(statement, language)) and draw.chance(0.3):
            told.append(statement._replace(text=its))
        elif not (told and _begins(statement) and _begins(told[0])):
            told.append(statement)
        elif told[-1].text.casefold().startswith(statement.entity.casefold()) and draw.chance(0.25):
            together = f"{told[-1].text}，{rest}" if language == "zh" else f"{told[-1].text} and {rest}"
            told = [
                *(other._replace(text=together) if other.text == told[-1].text else other for other in told),
                statement._replace(text=together),
            ]
        elif draw.chance(0.3):
            told.append(statement._replace(text=f"它{rest}" if language == "zh" else f"It {rest}"))
        else:
            told.append(statement)
    return told


def _possessive(statement: Statement, language: Language) -> str | None:
    """The height of the tower is -> Its height is; None: it is not said so."""
    if language == "zh":
        whole = f"{statement.entity}的"
        return statement.text.replace(whole, "它的", 1) if statement.text.startswith(whole) else None
    before, whole, after = statement.text.partition(f" of {statement.entity} is ")
    return f"Its {before.removeprefix('The ')} is {after}" if whole and before.startswith("The ") else None


def _begins(statement: Statement) -> bool:
    """Whether it says of the thing what it is or does, and not what somebody does with it."""
    rest = statement.text[len(statement.entity) :]
    return statement.text.casefold().startswith(statement.entity.casefold()) and rest[:1] not in (",", "(", "的")


def _body(draw: Draw, statements: list[Statement], language: Language) -> str:
    """Sentences about one thing, with some that say nothing; as a paragraph or as a list."""
    sentences = list(dict.fromkeys(statement.text + stop(language) for statement in statements))
    filler = _FILLERS_ZH if language == "zh" else _FILLERS
    for _ in range(draw.one([0, 0, 0, 1, 2])):
        sentences.insert(draw.number(0, len(sentences)), draw.expand(draw.one(filler)))
    return ("" if language == "zh" else " ").join(sentences) if draw.chance(0.8) else "\n".join(f"- {sentence}" for sentence in sentences)


_FILLERS = [
    "(Many|Few|Some) people (come here|read this|ask about it) (every year|today|in summer).",
    "More can be (read|found) (below|in the next section|elsewhere).",
    "This page was (changed|written) (last week|in May|long ago).",
    "(It is easy|It is not hard|It takes time) to (learn|see|understand).",
    "The weather is (good|bad|mild) there.",
    "(Note|Remember): (this may change|nothing here is final).",
    "See also the (list|index|map).",
    "(Everybody|Nobody) (likes|forgets) (that|it).",
]
_FILLERS_ZH = [
    "(很多|不少|一些)人(每年|今天|夏天)来这里。",
    "更多内容见(下文|下一节)。",
    "这一页(上周|不久前)更新过。",
    "那里的天气(很好|不好|温和)。",
    "请注意，这(可能会变|不是最终版本)。",
    "另见(目录|地图|列表)。",
]


def _joined(draw: Draw, questions: list[str], language: Language) -> str:
    if len(questions) == 1:
        return questions[0]
    second = questions[1]
    if language == "zh":
        return questions[0] + draw.one(["", "另外，", "还有，"]) + second
    return f"{questions[0]} {draw.one(['', 'And ', 'Also: '])}{second}"


def events_task(draw: Draw) -> SourceTask:
    """Sources about who did what; titles say little, so only the sentences tell where the answer is."""
    language: Language = "zh" if draw.chance(0.3) else "en"
    bodies = [[event(draw, language) for _ in range(draw.one([1, 2, 3, 4]))] for _ in range(draw.one([1, 2, 2, 3, 4, 5]))]
    passages = []
    for body in bodies:
        sentences = [item.text + stop(language) for item in body]
        joint = "" if language == "zh" else " "
        text = joint.join(sentences) if draw.chance(0.7) else draw.one(["\n", "\n\n"]).join(sentences)
        passages.append(Passage(_plain_title(draw, body[0], language), text))
    everything = [(item, number) for number, body in enumerate(bodies, 1) for item in body]
    turns = [
        (roughen(draw, framed(draw, asked.question, language) if draw.chance(0.25) else asked.question), [(asked.text, number)])
        for asked, number in draw.some(everything, min(len(everything), draw.number(1, 1 + MORE)))
    ]
    if draw.chance(0.06):
        turns.insert(draw.number(0, len(turns)), (roughen(draw, event(draw, language).question), []))
    (question, answers), *more = turns
    return source_task(draw, question, passages, language, answers, more)


def _plain_title(draw: Draw, first: Event, language: Language) -> str:
    if language == "zh":
        return draw.one(
            [
                first.text[: draw.number(2, 6)],
                draw.one(words.ZH_NOUNS),
                draw.one(words.ZH_THINGS),
                "笔记",
                f"{draw.one(words.ZH_THINGS)}与{draw.one(words.ZH_FOODS)}",
            ]
        )
    tokens = first.text.replace(",", "").split()
    return draw.one(
        [
            " ".join(tokens[: draw.number(1, 4)]),
            draw.one(words.NOUNS).capitalize(),
            draw.one(words.THINGS).capitalize(),
            f"docs/{words.syllables(draw, 2)}.md",
            f"{words.made_up(draw)} › {draw.one(words.NOUNS).capitalize()}",
            draw.one(["Usage", "Install", "News", "Start", "Configuration", "Memory", "FAQ"]),
        ]
    )
