"""Answering from numbered sources, in exactly the words of the search workflow: the sentence that answers and [n], or that they do not tell."""

from __future__ import annotations

from typing import NamedTuple

from mm_gateway.workflows.prompts import Language, Passage, answer_messages
from tools.train_tiny_chat.corpus import words
from tools.train_tiny_chat.corpus.attributes import CHINESE, ENGLISH
from tools.train_tiny_chat.corpus.conversation import Conversation, Example
from tools.train_tiny_chat.corpus.docs import DocSentence, doc_passages
from tools.train_tiny_chat.corpus.draw import Draw
from tools.train_tiny_chat.corpus.events import Event, event

NOT_TOLD: dict[Language, str] = {"en": "The sources do not tell.", "zh": "来源没有说明。"}

_TITLES = ["{e}", "About {e}", "{e} - overview", "{e} | Guide", "History of {e}", "{e}: facts", "docs/{c}.md", "Notes", "{c}", "{e} in numbers", "News", "Handbook: {e}"]
_TITLES_ZH = ["{e}", "关于{e}", "{e}简介", "{e}的历史", "{e}：概览", "笔记", "新闻", "手册", "{c}", "docs/{c}.md"]
_THINGS = ["the {adj} {noun} of {name}", "{name} {Noun}", "the {name} {noun}", "{name}", "{name}", "{name}", "`{code}`", "{code}", "{Noun} {name}", "{name} {number}"]


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
    slots = {"adj": draw.one(words.ADJECTIVES), "noun": noun, "Noun": noun.capitalize(), "name": words.made_up(draw), "code": words.code(draw), "number": str(draw.number(2, 99))}
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
    return roughen(draw, draw.question(kind.questions).replace("{e}", statement.entity).replace("{n}", counted))


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
    size = draw.one([1, 2, 2, 2, 3, 3, 3, 4, 5, 6])
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
        bodies.append([state(draw, subject, kind, language) for kind in new_ones])
    passages = [Passage(title(draw, subject, language), _body(draw, body, language)) for subject, body in zip(entities, bodies, strict=True)]
    if told is False or (told is None and draw.chance(0.14)):
        subject = draw.one(entities) if draw.chance(0.6) else entity(draw, language)
        missing = [kind for kind in attributes if (subject, kind) not in told_of]
        question = ask(draw, state(draw, subject, draw.one(missing), language), language)
        return _task(question, passages, language, [])
    everything = [(statement, number) for number, body in enumerate(bodies, 1) for statement in body]
    chosen = draw.some(everything, min(len(everything), asked or (2 if draw.chance(0.12) else 1)))
    question = _joined(draw, [ask(draw, statement, language) for statement, _ in chosen], language)
    return _task(question, passages, language, [(statement.text, number) for statement, number in chosen])


def _body(draw: Draw, statements: list[Statement], language: Language) -> str:
    """Sentences about one thing; later ones may say `it`, unless they might be asked for."""
    sentences = [statement.text + stop(language) for statement in statements]
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
_FILLERS_ZH = ["(很多|不少|一些)人(每年|今天|夏天)来这里。", "更多内容见(下文|下一节)。", "这一页(上周|不久前)更新过。", "那里的天气(很好|不好|温和)。", "请注意，这(可能会变|不是最终版本)。", "另见(目录|地图|列表)。"]


def _joined(draw: Draw, questions: list[str], language: Language) -> str:
    if len(questions) == 1:
        return questions[0]
    second = questions[1]
    if language == "zh":
        return questions[0] + draw.one(["", "另外，", "还有，"]) + second
    return f"{questions[0]} {draw.one(['', 'And ', 'Also: '])}{second}"


def _task(question: str, passages: list[Passage], language: Language, answers: list[tuple[str, int]]) -> SourceTask:
    reply = " ".join(cited(text, number, language) for text, number in answers) if language == "en" else "".join(cited(text, number, language) for text, number in answers)
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
    question = roughen(draw, asked.question)
    if draw.chance(0.1):
        return _task(roughen(draw, event(draw, language).question), passages, language, [])
    return _task(question, passages, language, [(asked.text, number)])


def _plain_title(draw: Draw, first: Event, language: Language) -> str:
    if language == "zh":
        return draw.one([first.text[: draw.number(2, 6)], draw.one(words.ZH_NOUNS), draw.one(words.ZH_THINGS), "笔记", f"{draw.one(words.ZH_THINGS)}与{draw.one(words.ZH_FOODS)}"])
    tokens = first.text.replace(",", "").split()
    return draw.one([" ".join(tokens[: draw.number(1, 4)]), draw.one(words.NOUNS).capitalize(), draw.one(words.THINGS).capitalize(), f"docs/{words.syllables(draw, 2)}.md", f"{words.made_up(draw)} › {draw.one(words.NOUNS).capitalize()}", draw.one(["Usage", "Install", "News", "Start", "Configuration", "Memory", "FAQ"])])


def docs_task(draw: Draw) -> SourceTask:
    """Passages of the repository's own documents; the question names what one sentence is about."""
    language: Language = "zh" if draw.chance(0.1) else "en"
    passages = draw.some(doc_passages(), draw.one([1, 2, 3, 4]))
    told = [(sentence, number) for number, passage in enumerate(passages, 1) for sentence in passage.sentences]
    if not told:
        return made_up_task(draw)
    sentence, number = draw.one(told)
    everything = " ".join(passage.text for passage in passages)
    question = _doc_question(draw, sentence, everything, language)
    if question is None:
        return made_up_task(draw)
    return _task(question, [Passage(passage.title, passage.text) for passage in passages], language, [(sentence.text.rstrip(".:;"), number)])


_EMPTY = set("with that this from what when where which they them then than there every each into only also more most other such some have does been will their your those these while after before about because".split())
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


def _doc_question(draw: Draw, sentence: DocSentence, everything: str, language: Language) -> str | None:
    """One to three words in a row of the sentence that occur nowhere else among the sources."""
    tokens = sentence.text.strip(".:;").split()
    spans = [tokens[at : at + length] for length in (1, 2, 3, 4) for at in range(len(tokens) - length + 1)]
    telling = [" ".join(span).strip(",.:;()") for span in spans if all(len(word) > 3 and word.lower() not in _EMPTY for word in (span[0], span[-1]))]
    unique = [span for span in telling if everything.lower().count(span.lower()) == 1]
    if not unique:
        return None
    pattern = draw.wording(_DOC_QUESTIONS_ZH if language == "zh" else _DOC_QUESTIONS)
    return roughen(draw, pattern.replace("{w}", draw.one(unique)))


def sample(draw: Draw) -> Example:
    return draw.one([docs_task] * 2 + [events_task] * 3 + [made_up_task] * 6)(draw).conversation
