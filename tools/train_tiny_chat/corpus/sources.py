"""Answering from numbered sources, in exactly the words of the search workflow: the sentence that answers and [n], or that they do not tell."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from mm_gateway.core import Message
from mm_gateway.workflows.prompts import Language, Passage, answer_messages
from tools.train_tiny_chat.corpus import words
from tools.train_tiny_chat.corpus.attributes import CHINESE, ENGLISH
from tools.train_tiny_chat.corpus.conversation import Conversation, Example
from tools.train_tiny_chat.corpus.docs import DocPiece, doc_pieces
from tools.train_tiny_chat.corpus.draw import Draw
from tools.train_tiny_chat.corpus.events import Event, event
from tools.train_tiny_chat.corpus.facts import Fact
from tools.train_tiny_chat.corpus.framing import framed
from tools.train_tiny_chat.corpus.gateway_facts import GATEWAY_FACTS
from tools.train_tiny_chat.corpus.general_facts import GENERAL_FACTS

NOT_TOLD: dict[Language, str] = {"en": "The sources do not tell.", "zh": "来源没有说明。"}

QUESTIONS: dict[Language, str] = {"en": "Questions and answers", "zh": "问题与解答"}
"""The document of the repository that has all facts about the gateway."""

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


class SourceTask(NamedTuple):
    """What the model gets, and what a right answer is."""

    conversation: Conversation
    answers: list[tuple[str, int]]
    """(text that has to be in the answer, number of its source); empty: the sources do not tell."""


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


def roughen(draw: Draw, question: str) -> str:
    """Sometimes as people type: in lower case at the beginning, without the question mark."""
    if draw.chance(0.12):
        question = question.rstrip("?？.。")
    if draw.chance(0.08):
        question = question[0].lower() + question[1:]
    return question


def stop(language: Language) -> str:
    return "。" if language == "zh" else "."


def cited(text: str, number: int, language: Language) -> str:
    return f"{text}[{number}]。" if language == "zh" else f"{text} [{number}].".lstrip()


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
        return _task(draw, _not_told_of(draw, subject, told_of, language), passages, language, [])
    everything = [(statement, number) for number, body in enumerate(bodies, 1) for statement in body]
    chosen = draw.some(everything, min(len(everything), asked or (2 if draw.chance(0.12) else 1)))
    question = _joined(draw, [ask(draw, statement, language) for statement, _ in chosen], language)
    later = [] if asked else draw.some(everything, min(len(everything), draw.number(0, _MORE)))
    more = [(ask(draw, statement, language), [(statement.text, number)]) for statement, number in later]
    if later and draw.chance(0.25):
        more.insert(draw.number(0, len(more)), (_not_told_of(draw, draw.one(entities), told_of, language), []))
    return _task(draw, question, passages, language, list(dict.fromkeys((statement.text, number) for statement, number in chosen)), more)


def _not_told_of(draw: Draw, subject: str, told_of: set[tuple[str, str]], language: Language) -> str:
    """A question about the thing that no source answers."""
    missing = [kind for kind in (ENGLISH if language == "en" else CHINESE) if (subject, kind) not in told_of]
    return ask(draw, state(draw, subject, draw.one(missing), language), language)


def _told_together(draw: Draw, statements: list[Statement], language: Language) -> list[Statement]:
    """Some in one sentence, and some that call the thing `it`, where a sentence about it went before."""
    told: list[Statement] = []
    for statement in statements:
        rest = statement.text[len(statement.entity) :].strip()
        if not (told and _begins(statement) and _begins(told[0])):
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


def _begins(statement: Statement) -> bool:
    """Whether it says of the thing what it is or does, and not what somebody does with it."""
    rest = statement.text[len(statement.entity) :]
    return statement.text.casefold().startswith(statement.entity.casefold()) and rest[:1] not in (",", "(", "的")


def _body(draw: Draw, statements: list[Statement], language: Language) -> str:
    """Sentences about one thing; later ones may say `it`, unless they might be asked for."""
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


Answers = list[tuple[str, int]]
_MORE = 4
"""At most so many questions follow the first about the same sources: each teaches as much as the first, for the tokens of one line."""


def _task(
    draw: Draw, question: str, passages: list[Passage], language: Language, answers: Answers, more: Sequence[tuple[str, Answers]] = ()
) -> SourceTask:
    messages = answer_messages(question, passages, language)
    messages.append(Message(role="assistant", content=_reply(answers, language)))
    if more and answers and draw.chance(0.3):
        more = [*more, _which(draw, passages, answers[0], language)]
    for later, its_answers in more:
        messages += [Message(role="user", content=later), Message(role="assistant", content=_reply(its_answers, language))]
    return SourceTask(Conversation("sources", tuple(messages)), answers)


def _which(draw: Draw, passages: list[Passage], answer: tuple[str, int], language: Language) -> tuple[str, Answers]:
    """Asks for the number of a source only, by what it says or by its title."""
    text, number = answer
    if draw.chance(0.5):
        number = draw.number(1, len(passages))
        text = passages[number - 1].title
        if sum(passage.title == text for passage in passages) > 1:
            text, number = answer
    asked = draw.wording(
        ["哪个来源：{t}？", "{t}在第几个来源？"]
        if language == "zh"
        else ["Which source is it: {t}?", "Where is this: {t}?", "(What|Which) number has {t}?"]
    )
    return asked.replace("{t}", text), [("", number)]


def _reply(answers: Answers, language: Language) -> str:
    reply = ("" if language == "zh" else " ").join(cited(text, number, language) for text, number in answers)
    return reply or NOT_TOLD[language]


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
        for asked, number in draw.some(everything, min(len(everything), draw.number(1, 1 + _MORE)))
    ]
    if draw.chance(0.06):
        turns.insert(draw.number(0, len(turns)), (roughen(draw, event(draw, language).question), []))
    (question, answers), *more = turns
    return _task(draw, question, passages, language, answers, more)


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


def docs_task(draw: Draw) -> SourceTask:
    """Pieces of the repository's own documents, as many as a search gives; a question for a fact of the gateway, or for what a sentence is about."""
    chosen = draw.some(doc_pieces(), draw.one([1, 2, 2, 3, 4, 6, 8]))
    asked = _fact_in(draw, chosen) if draw.chance(0.5) else None
    everything = " ".join(piece.text for piece in chosen)
    told = [(sentence, piece.chinese) for piece in chosen for sentence in piece.sentences]
    turns = [asked] if asked else []
    for sentence, chinese in draw.some(told, min(len(told), draw.number(1, 1 + _MORE))):
        language: Language = asked[2] if asked else "zh" if chinese or draw.chance(0.05) else "en"
        if (question := _doc_question(draw, sentence, everything, language)) is not None:
            turns.append((question, sentence, language))
    passages: list[Passage] = []
    for piece in chosen:
        # A source has one piece or a few.
        if passages and draw.chance(0.4):
            passages[-1] = Passage(passages[-1].title, f"{passages[-1].text}\n\n{piece.text}")
        else:
            passages.append(Passage(piece.title, piece.text))
    passages = passages[:6]
    flat = [passage.text.replace("\n", " ") for passage in passages]
    answered: list[tuple[str, Answers]] = []
    for question, sentence, _ in turns:
        number = next((at for at, text in enumerate(flat, 1) if sentence[:40] in text), None)
        if number is not None:
            answered.append((question, [(_bare(sentence), number)]))
    if not answered:
        return made_up_task(draw)
    (question, answers), *more = answered
    return _task(draw, question, passages, turns[0][2], answers, more)


def _fact_in(draw: Draw, chosen: list[DocPiece]) -> tuple[str, str, Language] | None:
    """A question for a fact, with the sentence of the documents that answers it; its piece takes a place among the chosen ones."""
    fact, language, piece, sentence = draw.one(_told_facts())
    if any(sentence in other.text.replace("\n", " ") for other in chosen):
        return None
    chosen[draw.number(0, len(chosen) - 1)] = piece
    return roughen(draw, framed(draw, draw.question(fact.asked(language)), language)), sentence, language


@functools.cache
def _told_facts() -> list[tuple[Fact, Language, DocPiece, str]]:
    """Facts with the sentence of the documents that says nearly the same, where there is one."""
    found: list[tuple[Fact, Language, DocPiece, str]] = []
    languages: list[Language] = ["en", "zh"]
    for language in languages:
        sentences = [(piece, sentence) for piece in doc_pieces() if piece.chinese == (language == "zh") for sentence in piece.sentences]
        for fact in GATEWAY_FACTS:
            wanted = _telling_parts(fact.text(language), language)
            same = [
                (len(wanted & _telling_parts(sentence, language)) / len(wanted), at)
                for at, (_, sentence) in enumerate(sentences)
                if all(key.lower() in sentence.lower() for key in fact.needed(language)[:1])
            ]
            share, at = max(same, default=(0.0, 0))
            if share >= 0.3:
                found.append((fact, language, *sentences[at]))
    return found


def _telling_parts(text: str, language: Language) -> set[str]:
    if language == "zh":
        return {text[at : at + 2] for at in range(len(text) - 1)}
    return {word for word in re.findall(r"[\w/.-]{3,}", text.lower()) if word not in _EMPTY}


def facts_task(draw: Draw) -> SourceTask:
    """Sources that tell what is so, of the gateway and of the world, in sentences of all kinds; half of them answer questions that they name."""
    language: Language = "zh" if draw.chance(0.35) else "en"
    bodies = [
        draw.some(draw.one([GATEWAY_FACTS, GATEWAY_FACTS + GENERAL_FACTS]), draw.one([1, 1, 2, 3]))
        for _ in range(draw.one([1, 2, 3, 4, 5]))
    ]
    facts = [(fact, number) for number, body in enumerate(bodies, 1) for fact in body]
    passages = [_facts_passage(draw, body, language) for body in bodies]
    turns = [
        (roughen(draw, framed(draw, draw.question(fact.asked(language)), language)), [(_bare(fact.text(language)), number)])
        for fact, number in draw.some(facts, min(len(facts), draw.number(1, 1 + _MORE)))
    ]
    if draw.chance(0.15):
        other = draw.one(GATEWAY_FACTS + GENERAL_FACTS)
        if all(other is not fact for fact, _ in facts):
            turns.insert(draw.number(0, len(turns)), (roughen(draw, draw.question(other.asked(language))), []))
    (question, answers), *more = turns
    return _task(draw, question, passages, language, answers, more)


def _facts_passage(draw: Draw, facts: Sequence[Fact], language: Language) -> Passage:
    key = draw.one(facts[0].needed(language))
    if draw.chance(0.5):
        questions = [draw.question(fact.asked(language)) for fact in facts]
        if len(facts) == 1 and draw.chance(0.7):  # as an index of the document gives it
            return Passage(f"{QUESTIONS[language]} › {questions[0]}", facts[0].text(language))
        told = [f"{question}\n{fact.text(language)}" for question, fact in zip(questions, facts, strict=True)]
        return Passage(draw.one([f"{QUESTIONS[language]} › {draw.one(questions)}", QUESTIONS[language], key]), "\n\n".join(told))
    return Passage(
        draw.one([key, *(["笔记", "手册"] if language == "zh" else ["Notes", "Handbook"])]),
        ("" if language == "zh" else " ").join(fact.text(language) for fact in facts),
    )


def _bare(text: str) -> str:
    return text.rstrip(".:;。")


_EMPTY = set(
    "with that this from what when where which they them then than there every each into only also more most other such some have does been will their your those these while after before about because".split()
)
_DOC_QUESTIONS = [
    "What (about|does it say about|is said about) {w}?",
    "How (does|do|is it with) {w}( work|)?",
    "(Tell me|Explain|Say something) about {w}.",
    "What (is|are) {w}?",
    "{w}?",
    "How (do I|can I) (use|set|get|handle) {w}?",
    "What (happens|goes on) with {w}?",
    "(Why|When) {w}?",
    "I want to know about {w}.",
    "{w}",
]
_DOC_QUESTIONS_ZH = ["{w}是什么？", "关于{w}有什么说明？", "怎么用{w}？", "请介绍{w}。", "{w}怎么样？", "{w}？"]


def _doc_question(draw: Draw, sentence: str, everything: str, language: Language) -> str | None:
    """One to three words in a row of the sentence that occur nowhere else among the sources."""
    tokens = sentence.strip(".:;").split()
    spans = [tokens[at : at + length] for length in (1, 2, 3, 4) for at in range(len(tokens) - length + 1)]
    telling = [
        " ".join(span).strip(",.:;()")
        for span in spans
        if all(len(word) > 3 and word.lower() not in _EMPTY for word in (span[0], span[-1]))
    ]
    unique = [span for span in telling if everything.lower().count(span.lower()) == 1]
    if language == "zh" and not unique:
        at = draw.number(0, max(0, len(sentence) - 8))
        unique = [piece for piece in [sentence[at : at + draw.number(3, 7)]] if everything.count(piece) == 1]
    if not unique:
        return None
    pattern = draw.wording(_DOC_QUESTIONS_ZH if language == "zh" else _DOC_QUESTIONS)
    return roughen(draw, pattern.replace("{w}", draw.one(unique)))


def sample(draw: Draw) -> Example:
    return draw.one([docs_task] * 2 + [facts_task] * 4 + [events_task] * 4 + [made_up_task] * 6)(draw).conversation
