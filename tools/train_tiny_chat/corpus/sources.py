"""Answering from numbered sources, in exactly the words of the search workflow: the sentence that answers and [n], or that they do not tell."""

from __future__ import annotations

import re
from typing import NamedTuple

from mm_gateway.workflows.prompts import Language, Passage, answer_messages
from tools.train_tiny_chat.corpus import words
from tools.train_tiny_chat.corpus.attributes import CHINESE, ENGLISH
from tools.train_tiny_chat.corpus.conversation import Conversation, Example
from tools.train_tiny_chat.corpus.docs import DocPiece, doc_pieces
from tools.train_tiny_chat.corpus.draw import Draw
from tools.train_tiny_chat.corpus.events import Event, event
from tools.train_tiny_chat.corpus.framing import framed
from tools.train_tiny_chat.corpus.gateway_facts import GATEWAY_FACTS

NOT_TOLD: dict[Language, str] = {"en": "The sources do not tell.", "zh": "来源没有说明。"}

# fmt: off
_TITLES = ["{e}", "About {e}", "{e} - overview", "{e} | Guide", "History of {e}", "{e}: facts", "docs/{c}.md", "Notes", "{c}", "{e} in numbers", "News", "Handbook: {e}"]
_TITLES_ZH = ["{e}", "关于{e}", "{e}简介", "{e}的历史", "{e}：概览", "笔记", "新闻", "手册", "{c}", "docs/{c}.md"]
_THINGS = ["the {adj} {noun} of {name}", "{name} {Noun}", "the {name} {noun}", "{name}", "{name}", "{name}", "`{code}`", "{code}", "{Noun} {name}", "{name} {number}"]
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
    return f"{text}[{number}]。" if language == "zh" else f"{text} [{number}]."


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
        bodies.append(_told_together(draw, [state(draw, subject, kind, language) for kind in new_ones], language))
    passages = [
        Passage(title(draw, subject, language), _body(draw, body, language)) for subject, body in zip(entities, bodies, strict=True)
    ]
    if told is False or (told is None and draw.chance(0.05)):
        subject = draw.one(entities) if draw.chance(0.6) else entity(draw, language)
        missing = [kind for kind in attributes if (subject, kind) not in told_of]
        question = ask(draw, state(draw, subject, draw.one(missing), language), language)
        return _task(question, passages, language, [])
    everything = [(statement, number) for number, body in enumerate(bodies, 1) for statement in body]
    chosen = draw.some(everything, min(len(everything), asked or (2 if draw.chance(0.12) else 1)))
    question = _joined(draw, [ask(draw, statement, language) for statement, _ in chosen], language)
    return _task(question, passages, language, list(dict.fromkeys((statement.text, number) for statement, number in chosen)))


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
        elif draw.chance(0.15):
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


def _task(question: str, passages: list[Passage], language: Language, answers: list[tuple[str, int]]) -> SourceTask:
    reply = (
        " ".join(cited(text, number, language) for text, number in answers)
        if language == "en"
        else "".join(cited(text, number, language) for text, number in answers)
    )
    messages = answer_messages(question, passages, language)
    messages.append(type(messages[0])(role="assistant", content=reply or NOT_TOLD[language]))
    return SourceTask(Conversation("sources", tuple(messages)), answers)


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
    asked, number = draw.one(everything)
    question = roughen(draw, framed(draw, asked.question, language) if draw.chance(0.25) else asked.question)
    if draw.chance(0.04):
        return _task(roughen(draw, event(draw, language).question), passages, language, [])
    return _task(question, passages, language, [(asked.text, number)])


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
    if draw.chance(0.5) and (asked := _fact_in(draw, chosen)) is not None:
        question, sentence, language = asked
    else:
        told = [(sentence, piece.chinese) for piece in chosen for sentence in piece.sentences]
        if not told:
            return made_up_task(draw)
        sentence, chinese = draw.one(told)
        language = "zh" if chinese or draw.chance(0.05) else "en"
        found = _doc_question(draw, sentence, " ".join(piece.text for piece in chosen), language)
        if found is None:
            return made_up_task(draw)
        question = found
    passages: list[Passage] = []
    for piece in chosen:
        # A source has one piece or a few.
        if passages and draw.chance(0.4):
            passages[-1] = Passage(passages[-1].title, f"{passages[-1].text}\n\n{piece.text}")
        else:
            passages.append(Passage(piece.title, piece.text))
    passages = passages[:6]
    flat = [passage.text.replace("\n", " ") for passage in passages]
    number = next((at for at, text in enumerate(flat, 1) if sentence[:40] in text), None)
    if number is None:
        return made_up_task(draw)
    return _task(question, passages, language, [(sentence.rstrip(".:;。"), number)])


def _fact_in(draw: Draw, chosen: list[DocPiece]) -> tuple[str, str, Language] | None:
    """A question for a fact, with the sentence of the documents that answers it; its piece takes a place among the chosen ones."""
    for _ in range(20):
        fact = draw.one(GATEWAY_FACTS)
        language: Language = "zh" if draw.chance(0.25) else "en"
        key = fact.keys[0]
        telling = [
            (piece, sentence)
            for piece in doc_pieces()
            if piece.chinese == (language == "zh")
            for sentence in piece.sentences
            if key in sentence
        ]
        if re.search(r"[_/:-]", key) and telling:
            piece, sentence = draw.one(telling)
            if all(key not in other.text for other in chosen):
                chosen[draw.number(0, len(chosen) - 1)] = piece
                return roughen(draw, framed(draw, draw.question(fact.asked(language)), language)), sentence, language
    return None


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
    return draw.one([docs_task] * 2 + [events_task] * 4 + [made_up_task] * 6)(draw).conversation
