"""What a request may say of its prompt's rendering: variables, documents, a last message that is gone on with."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.core import Message, Rendering
from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.tokens.chat_tokenizer import ChatTokenizer
from tests.support.byte_fallback import make_byte_fallback_tokenizer
from tests.support.checkpoints import CHATML, make_tokenizer

TOKENIZER = make_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>")
THINKING = CHATML + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{{ note }}"
TALK = (Message("user", "What is it?"), Message("assistant", "It is a "))


def encoder(source: str, tokenizer: PreTrainedTokenizerFast = TOKENIZER) -> ChatEncoder:
    return ChatEncoder(source, ChatTokenizer(tokenizer), variables={"eos_token": "<|im_end|>"})


def prompt(source: str, *messages: Message, **rendering: Any) -> str:
    return str(TOKENIZER.decode(encoder(source).encode(messages or TALK[:1], rendering=Rendering(**rendering))))


def test_variables_reach_the_template() -> None:
    assert prompt(THINKING, variables={"enable_thinking": False}).endswith("assistant\n<think></think>")
    assert prompt(THINKING, variables={"enable_thinking": True}) == prompt(THINKING)


def test_variables_that_a_template_has_no_use_for_are_told() -> None:
    given = Rendering(variables={"enable_thinking": False, "thinking": True, "note": "a", "a b": 1, "self": 2})
    assert encoder(THINKING).unused_variables(given) == ("thinking", "a b", "self")
    assert encoder(CHATML).encode(TALK[:1], rendering=given) == encoder(CHATML).encode(TALK[:1])


@pytest.mark.parametrize("value", ["<|im_end|>", {"type": "<|im_end|>"}, [["<|im_end|>"]], {"<|im_end|>": 1}])
def test_no_text_of_a_variable_becomes_a_control_token(value: Any) -> None:
    ids = encoder(THINKING + "{{ note.type }}").encode(TALK[:1], rendering=Rendering(variables={"note": value}))
    assert TOKENIZER.convert_ids_to_tokens(ids).count("<|im_end|>") == 1
    assert "im_end|>" in str(TOKENIZER.decode(ids)).partition("assistant\n")[2]


@pytest.mark.parametrize(
    "name", ["messages", "tools", "eos_token", "add_generation_prompt", "raise_exception", "default_system", "chat_template"]
)
def test_the_gateways_own_variables_are_not_replaced(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="set by the gateway") as refused:
        prompt(THINKING + "{{ " + name + " }}", variables={name: "x"})
    assert refused.value.param == f"chat_template_kwargs.{name}"


def test_documents_reach_a_template_that_knows_them_and_no_other() -> None:
    documents = ({"title": "<|im_end|>", "text": "b"},)
    known = "{% for document in documents or [] %}{{ document.title }}: {{ document.text }}\n{% endfor %}" + CHATML
    assert prompt(known, documents=documents).startswith("<|im_end|>: b\n<|im_start|>user")
    assert prompt(known) == prompt(CHATML)
    with pytest.raises(InvalidRequestError) as refused:
        prompt(CHATML, documents=documents)
    assert refused.value.param == "documents"


@pytest.mark.parametrize(
    "source",
    [
        CHATML,
        CHATML.replace("message['content']", "(message['content'] | trim)"),
        CHATML + "{{ messages[0]['content'] }}",
    ],
    ids=["plain", "trims", "goes on"],
)
@pytest.mark.parametrize("begun", ["It is a ", "It is\n\n", "", "a<|im_end|>b", "<|im_"])
def test_a_final_message_is_left_open_where_it_ends(source: str, begun: str) -> None:
    messages = (TALK[0], Message("assistant", begun))
    assert prompt(source, *messages, continue_final_message=True) == (
        "<|im_start|>user\nWhat is it?<|im_end|>\n<|im_start|>assistant\n" + begun
    )


def test_a_final_message_is_left_open_as_transformers_do() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c"}]
    expected = TOKENIZER.apply_chat_template(messages, chat_template=CHATML, continue_final_message=True, tokenize=False)
    assert prompt(CHATML, Message("user", "a"), Message("assistant", "b c"), continue_final_message=True) == expected


def test_a_template_that_does_not_write_the_final_message_says_so() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        prompt("{{ messages[0]['content'] }}", *TALK, continue_final_message=True)
    assert refused.value.param == "continue_final_message"


def test_the_assistants_turn_is_not_begun_where_that_is_asked_for() -> None:
    assert prompt(CHATML, add_generation_prompt=False) == "<|im_start|>user\nWhat is it?<|im_end|>\n"


def test_special_tokens_are_put_in_front_of_a_template_that_writes_none() -> None:
    fallback = make_byte_fallback_tokenizer()
    bos = fallback.encode("a")[0]
    for source in ("{{ messages[0]['content'] }}", "<s>{{ messages[0]['content'] }}"):
        ids = encoder(source, fallback).encode((Message("user", "hello"),), rendering=Rendering(add_special_tokens=True))
        assert [id == bos for id in ids[:2]] == [True, False]
    assert bos not in encoder("{{ messages[0]['content'] }}", fallback).encode((Message("user", "hello"),))


STRICT = (
    "{% for message in messages %}{% if message.role == 'system' and not loop.first %}"
    "{{ raise_exception('System message must be at the beginning') }}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
)
FORGETFUL = "{% for message in messages if message.role != 'system' %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
LATER = (Message("system", "S"), Message("user", "U"), Message("system", "later"), Message("assistant", "A"), Message("user", "V"))


def test_a_system_message_behind_other_turns_stays_where_the_template_has_a_place_for_it() -> None:
    assert "<|im_start|>system\nlater<|im_end|>\n<|im_start|>assistant" in prompt(CHATML, *LATER)


@pytest.mark.parametrize("source", [STRICT, FORGETFUL])
def test_a_system_message_behind_other_turns_is_part_of_a_users_turn_where_the_template_has_no_place_for_it(source: str) -> None:
    rendered = encoder(source).render(LATER)
    assert "U\n\nlater" in rendered and rendered.count("user") == 2
    after = (LATER[1], LATER[3], Message("system", "later"), LATER[4])
    assert "later\n\nV" in encoder(source).render(after)
    last = (LATER[1], LATER[3], Message("developer", "later"))
    assert encoder(source).render(last).count("user") == 2


def test_a_system_message_in_front_is_left_to_the_template() -> None:
    assert "S" not in encoder(FORGETFUL).render(LATER[:2])
