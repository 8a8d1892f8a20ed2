"""The corpus of the built-in model: the same each time, rendered as it is served, and nothing of the evaluation in it."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.chat_templates.templates import BUILT_IN
from mm_gateway.core import Message
from mm_gateway.runtime.tokens.chat_tokenizer import ChatTokenizer
from mm_gateway.workflows import prompts
from tools.train_tiny_chat import corpus
from tools.train_tiny_chat.batches import encode
from tools.train_tiny_chat.cases import all_cases
from tools.train_tiny_chat.corpus import examples
from tools.train_tiny_chat.facts import DOCS, document, facts
from tools.train_tiny_chat.templates import Draw, Scope

MODEL = Path(__file__).parents[2] / "mm_gateway" / "builtin_models" / "tiny_chat"


def test_a_pattern_draws_alternatives_words_numbers_and_results() -> None:
    scope: Scope = {}
    text = Draw(1).expand("(Add|Sum) {2..9.a} and {2..9.b}: {2..9.a+2..9.b}, {2..9.a}", scope)
    a, b = int(scope["2..9.a"]), int(scope["2..9.b"])
    assert re.fullmatch(f"(Add|Sum) {a} and {b}: {a + b}, {a}", text)
    one, same, other = Draw(4).expand("{person}|{person}|{person.2}").split("|")
    assert one == same != other


def test_what_is_no_slot_stays_as_it_is() -> None:
    assert Draw(1).expand('{"a": {nothing}} (b)') == '{"a": {nothing}} (b)'


def test_the_same_seed_gives_the_same_examples() -> None:
    first, second = (list(itertools.islice(examples(3), 1500)) for _ in range(2))
    assert first == second
    assert first != list(itertools.islice(examples(4), 1500))
    assert {example.skill for example in first} == set(corpus.read("templates")["mixture"])


def test_no_pattern_is_left_in_an_example() -> None:
    slot = re.compile(r"\{(" + "|".join(corpus.read("templates")["tables"]) + r")(\.\w+)?\}|\{\d")
    for example in itertools.islice(examples(8, early=True), 3000):
        for text in [example.text, *(message.content for message in example.messages)]:
            assert not slot.search(text), text


def test_every_fact_says_what_a_right_answer_needs_in_both_languages() -> None:
    for fact in [*facts("gateway"), *facts("general"), *facts("small_talk")]:
        for wording in fact.values():
            assert wording.told_in(wording.answer), wording.answer
            assert len(wording.questions) >= 2


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_documents_of_questions_are_those_of_the_facts(language: prompts.Language) -> None:
    text = (DOCS / f"questions.{language}.md").read_text(encoding="utf-8")
    assert text == document(language), "write them again: python -m tools.train_tiny_chat questions"
    assert "|" not in text and "(" not in text.split("## ")[1].splitlines()[0]


def test_training_never_sees_what_the_evaluation_asks() -> None:
    asked = {case.messages[-1].content.casefold() for case in all_cases()}
    sums = tuple(case["sum"] for case in corpus.read("held_out")["conversations"]["arithmetic"])
    for example in itertools.islice(examples(11), 6000):
        for message in example.messages:
            assert message.role != "user" or message.content.casefold() not in asked
            assert message.role != "assistant" or not message.content.startswith(sums)


def test_an_answer_from_sources_cites_the_source_that_says_it() -> None:
    draw = Draw(2)
    for _ in range(200):
        _, prompt, *turns = corpus.sources(draw, "sources").messages
        sources = re.split(r"^\[\d+\] ", prompt.content, flags=re.MULTILINE)
        for answer in turns[::2]:
            if cited := re.search(r"^(.*?) ?\[(\d+)\][.。]$", answer.content):
                assert cited[1] in sources[int(cited[2])]


def test_a_source_is_about_what_its_title_names() -> None:
    draw = Draw(7)
    titles = [message for _ in range(200) for message in re.findall(r"^\[\d+\] About (.*)\n(.*)$", _prompt(draw), flags=re.MULTILINE)]
    assert len(titles) > 5
    assert all(name.casefold() in text.casefold() for name, text in titles)


def _prompt(draw: Draw) -> str:
    return corpus.sources(draw, "sources").messages[1].content


def test_a_reworded_prompt_is_what_the_next_training_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    before = corpus.sources(Draw(2), "sources")
    monkeypatch.setattr(prompts, "answer_messages", lambda *_: [Message(role="user", content="In other words")])
    after = corpus.sources(Draw(2), "sources")
    assert after.messages == (Message(role="user", content="In other words"), *before.messages[2:])


def test_a_tool_is_called_with_values_of_its_types_and_its_result_is_told() -> None:
    draw = Draw(3)
    for _ in range(200):
        example = corpus.tools(draw, "tools")
        question, asking, result, answer = example.messages
        (call,) = asking.tool_calls
        tool = next(tool for tool in example.tools if tool.name == call.name)
        assert tool.parameters is not None
        for name, value in json.loads(call.arguments).items():
            assert isinstance(value, {"integer": int, "string": str}[tool.parameters["properties"][name]["type"]])
            assert str(value) in question.content
        json.loads(result.content)
        assert answer.content


def test_examples_are_tokens_as_the_gateway_renders_them() -> None:
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    encoder = ChatEncoder(BUILT_IN["chatml"].source, ChatTokenizer(fast))
    for example in itertools.islice(examples(5), 300):
        if not example.messages:
            continue
        encoded = encode(example, tokenizer)
        *before, answer = example.messages
        prompt = encoder.encode(before, example.tools)
        assert encoded.ids[: len(prompt)] == prompt
        assert max(encoded.learned[len(prompt) - 3 : len(prompt)]) < 1 <= min(encoded.learned[len(prompt) : -1])
        assert encoded.ids[-2] == tokenizer.token_to_id("<|im_end|>")
        assert tokenizer.decode(encoded.ids[len(prompt) : -2], skip_special_tokens=False) == answer.content


def test_lessons_are_json_without_blanks_between_its_parts() -> None:
    draw = Draw(6)
    for _ in range(60):
        text = corpus.lessons(draw, "lessons").messages[-1].content
        assert json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")) == text
