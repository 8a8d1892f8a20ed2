"""Answers from sources that tell what is so: the repository's documents, as they are and as a search gives them, and facts."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Sequence

from mm_gateway.configuration.settings import SearchSettings
from mm_gateway.search.fitting import Source, fit
from mm_gateway.search.local import documentation_index
from mm_gateway.search.local_index import LocalIndex, UrlOf
from mm_gateway.workflows.prompts import Language, Passage
from tools.train_tiny_chat.corpus.docs import DocPiece, doc_pieces
from tools.train_tiny_chat.corpus.draw import Draw
from tools.train_tiny_chat.corpus.facts import Fact
from tools.train_tiny_chat.corpus.framing import framed
from tools.train_tiny_chat.corpus.gateway_facts import GATEWAY_FACTS
from tools.train_tiny_chat.corpus.general_facts import GENERAL_FACTS
from tools.train_tiny_chat.corpus.made_up_sources import made_up_task
from tools.train_tiny_chat.corpus.source_task import MORE, Answers, SourceTask, bare, roughen, source_task

QUESTIONS: dict[Language, str] = {"en": "Questions and answers", "zh": "问题与解答"}
"""The document of the repository that has all facts about the gateway."""

ROOM_TOKENS = 1250
"""For sources: what search-qa gives them in a context of 2048 tokens, of which it keeps 512 for the answer."""
_BYTES_A_TOKEN = 2.5
"""Of the repository's documents, at least."""


def docs_task(draw: Draw) -> SourceTask:
    """Pieces of the repository's own documents, as many as a search gives; a question for a fact of the gateway, or for what a sentence is about."""
    chosen = draw.some(doc_pieces(), draw.one([1, 2, 2, 3, 4, 6, 8]))
    asked = _fact_in(draw, chosen) if draw.chance(0.5) else None
    everything = " ".join(piece.text for piece in chosen)
    told = [(sentence, piece.chinese) for piece in chosen for sentence in piece.sentences]
    turns = [asked] if asked else []
    for sentence, chinese in draw.some(told, min(len(told), draw.number(1, 1 + MORE))):
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
            answered.append((question, [(bare(sentence), number)]))
    if not answered:
        return made_up_task(draw)
    (question, answers), *more = answered
    return source_task(draw, question, passages, turns[0][2], answers, more)


def _fact_in(draw: Draw, chosen: list[DocPiece]) -> tuple[str, str, Language] | None:
    """A question for a fact, with the sentence of the documents that answers it; its piece takes a place among the chosen ones."""
    fact, language, piece, sentence = draw.one(_told_facts())
    if any(sentence in other.text.replace("\n", " ") for other in chosen):
        return None
    chosen[draw.number(0, len(chosen) - 1)] = piece
    return _asked(draw, fact, language), sentence, language


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


def searched_task(draw: Draw) -> SourceTask:
    """What search-qa reads in the repository's documents when it is asked for a fact about the gateway, or for what they do not tell."""
    language: Language = "zh" if draw.chance(0.35) else "en"
    beside = draw.chance(0.12)
    fact = draw.one(GENERAL_FACTS if beside else GATEWAY_FACTS)
    question = draw.question(fact.asked(language))
    passages = searched(question, draw.one([ROOM_TOKENS // 2, ROOM_TOKENS]))
    told = [(other, number) for other in GATEWAY_FACTS if (number := _number_of(other, passages, language))]
    number = next((number for other, number in told if other is fact), None)
    if not passages or (number is None and (not beside or _told_in(passages, fact, language))):
        return facts_task(draw)
    turns: list[tuple[str, Answers]] = [
        (_asked(draw, other, language), [(bare(other.text(language)), at)])
        for other, at in draw.some(told, min(len(told), draw.number(0, MORE)))
        if other is not fact
    ]
    asked = roughen(draw, framed(draw, question, language))
    return source_task(draw, asked, passages, language, [(bare(fact.text(language)), number)] if number else [], turns)


@functools.lru_cache(maxsize=10_000)
def searched(question: str, room_tokens: int) -> list[Passage]:
    """The passages that search-qa gives a model by default, but for the tokens, which are estimated: the tokenizer comes after the corpus."""
    settings = SearchSettings()
    found = _index().search(question, settings.max_results, UrlOf())

    async def count(texts: Sequence[str]) -> list[int]:
        return [int(len(text.encode()) / _BYTES_A_TOKEN) for text in texts]

    sources = [Source(result.title, result.text or "") for result in found]
    texts = asyncio.run(fit(question, sources, count, room_tokens=room_tokens, max_source_tokens=settings.max_source_tokens))
    return [Passage(source.title, text) for source, text in zip(sources, texts, strict=False)]


@functools.cache
def _index() -> LocalIndex:
    return documentation_index()


def _asked(draw: Draw, fact: Fact, language: Language) -> str:
    return roughen(draw, framed(draw, draw.question(fact.asked(language)), language))


def _number_of(fact: Fact, passages: Sequence[Passage], language: Language) -> int:
    return next((at for at, passage in enumerate(passages, 1) if fact.text(language) in passage.text), 0)


def _told_in(passages: Sequence[Passage], fact: Fact, language: Language) -> bool:
    return fact.told_in("\n".join(passage.text for passage in passages), language)


def facts_task(draw: Draw) -> SourceTask:
    """Sources that tell what is so, of the gateway and of the world, in sentences of all kinds; half of them answer questions that they name."""
    language: Language = "zh" if draw.chance(0.35) else "en"
    bodies = [
        draw.some(draw.one([GATEWAY_FACTS, GATEWAY_FACTS + GENERAL_FACTS]), draw.one([1, 1, 2, 3]))
        for _ in range(draw.one([1, 2, 3, 4, 5]))
    ]
    facts = [(fact, number) for number, body in enumerate(bodies, 1) for fact in body]
    passages = [_facts_passage(draw, body, language) for body in bodies]
    if draw.chance(0.3):  # among other documents, of which none says the same
        others = [
            piece
            for piece in draw.some(doc_pieces(), draw.number(1, 4))
            if not any(fact.told_in(piece.text, language) for fact, _ in facts)
        ]
        before = draw.number(0, len(others))
        passages = [Passage(piece.title, piece.text) for piece in others[:before]] + passages
        passages += [Passage(piece.title, piece.text) for piece in others[before:]]
        facts = [(fact, number + before) for fact, number in facts]
    turns = [
        (_asked(draw, fact, language), [(bare(fact.text(language)), number)])
        for fact, number in draw.some(facts, min(len(facts), draw.number(1, 1 + MORE)))
    ]
    if draw.chance(0.15):
        other = draw.one(GATEWAY_FACTS + GENERAL_FACTS)
        if not _told_in(passages, other, language):
            turns.insert(draw.number(0, len(turns)), (roughen(draw, draw.question(other.asked(language))), []))
    (question, answers), *more = turns
    return source_task(draw, question, passages, language, answers, more)


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
