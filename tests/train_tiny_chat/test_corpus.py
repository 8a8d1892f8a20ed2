"""The corpus of the built-in model: the same each time, rendered as it is served, and nothing of the evaluation in it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.chat_templates.templates import BUILT_IN
from mm_gateway.core import Message
from mm_gateway.runtime.tokens.chat_tokenizer import ChatTokenizer
from tools.train_tiny_chat.cases import all_cases
from tools.train_tiny_chat.corpus.conversation import Conversation, PlainText, encode
from tools.train_tiny_chat.corpus.draw import Draw
from tools.train_tiny_chat.corpus.gateway_facts import GATEWAY_FACTS
from tools.train_tiny_chat.corpus.general_facts import GENERAL_FACTS
from tools.train_tiny_chat.corpus.made_up_sources import made_up_task
from tools.train_tiny_chat.corpus.mixture import SKILLS, examples
from tools.train_tiny_chat.corpus.questions import DOCUMENTS, questions_and_answers
from tools.train_tiny_chat.corpus.small_talk import SMALL_TALK

MODEL = Path(__file__).parents[2] / "mm_gateway" / "builtin_models" / "tiny_chat"
FACTS = [*GATEWAY_FACTS, *GENERAL_FACTS, *SMALL_TALK]


def test_the_same_seed_gives_the_same_examples() -> None:
    first, second = (list(itertools.islice(examples(3), 200)) for _ in range(2))
    assert first == second
    assert first != list(itertools.islice(examples(4), 200))
    assert {example.skill for example in first} >= {skill.name for skill in SKILLS} - {"plain text", "json"}


def test_every_fact_says_what_a_right_answer_needs_in_both_languages() -> None:
    for fact in FACTS:
        for language in ("en", "zh"):
            assert all(key in fact.text(language) for key in fact.needed(language)), fact.text(language)
            assert len(fact.asked(language)) >= 3


def test_the_documents_of_questions_are_those_of_the_facts() -> None:
    for language, path in DOCUMENTS.items():
        text = path.read_text(encoding="utf-8")
        assert text == questions_and_answers(language), "write them again: python -m tools.train_tiny_chat questions"
        assert "|" not in text and "(" not in text.split("## ")[1].splitlines()[0]


def test_training_never_sees_what_the_evaluation_asks() -> None:
    asked = {
        case.messages[-1].content.casefold() for case in all_cases(60) if case.skill not in ("says that it does not know", "arithmetic")
    }
    trained = set()
    for example in itertools.islice(examples(11), 6000):
        if isinstance(example, Conversation):
            trained |= {message.content.casefold() for message in example.messages if message.role == "user"}
    assert not asked & trained


@pytest.mark.parametrize("seed", range(4))
def test_a_source_task_cites_the_source_that_says_it(seed: int) -> None:
    draw = Draw(seed)
    for _ in range(50):
        task = made_up_task(draw)
        question, reply = task.conversation.messages[1:3]
        for text, number in task.answers:
            assert f"[{number}]" in reply.content
            source = question.content.split(f"[{number}] ")[1].split("\n\n[")[0]
            assert text in source


def test_examples_are_tokens_as_the_gateway_renders_them() -> None:
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    encoder = ChatEncoder(BUILT_IN["chatml"].source, ChatTokenizer(_fast(tokenizer)))
    for example in itertools.islice(examples(5), 300):
        if isinstance(example, PlainText):
            continue
        encoded = encode(example, tokenizer)
        *before, answer = example.messages
        prompt = encoder.encode(before, example.tools)
        assert encoded.ids[: len(prompt)] == prompt
        given = len(tokenizer.encode(example.given).ids)
        assert max(encoded.learned[len(prompt) - 3 : len(prompt) + given]) < 1 <= min(encoded.learned[len(prompt) + given : -1])
        end = tokenizer.token_to_id("<|im_end|>")
        assert encoded.ids[-2] == end and encoded.learned[-2] == 1
        if not answer.tool_calls:
            assert tokenizer.decode(encoded.ids[len(prompt) : -2], skip_special_tokens=False) == answer.content


def _fast(tokenizer: Tokenizer):  # type: ignore[no-untyped-def]
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")


def test_lessons_are_json_without_blanks_between_its_parts() -> None:
    lessons = [
        example for example in itertools.islice(examples(6), 2000) if isinstance(example, Conversation) and example.skill == "lessons"
    ]
    replies = [
        message for example in lessons for message in example.messages if isinstance(message, Message) and message.role == "assistant"
    ]
    structured = [reply.content for reply in replies if reply.content[0] in "[{"]
    assert len(structured) > 50
    for text in structured:
        assert json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")) == text
