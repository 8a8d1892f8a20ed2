"""The built-in templates against golden strings, checkpoints' own templates against transformers, and no message ever a control token."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.chat_templates.templates import BUILT_IN, built_in_for
from mm_gateway.chat_templates.tool_formats.formats import TOOL_FORMATS
from mm_gateway.core import Message, Role, Tool, ToolCall
from mm_gateway.errors import ConfigurationError, InvalidRequestError
from mm_gateway.runtime.tokens.chat_tokenizer import ChatTokenizer
from tests.support.checkpoints import make_tokenizer, token_id

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>"]
TOKENIZER = make_tokenizer(SPECIALS, bos_token="<s>", eos_token="</s>")
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}


def encoder(name: str) -> ChatEncoder:
    template = BUILT_IN[name]
    return ChatEncoder(
        template.source,
        ChatTokenizer(TOKENIZER),
        variables=VARIABLES,
        stop_strings=template.stop_strings,
        default_system=template.default_system,
    )


def conversation(*turns: tuple[Role, str]) -> list[Message]:
    return [Message(role, content) for role, content in turns]


TURNS = conversation(("user", "Hi"), ("assistant", "Hello!"), ("user", "你好？"))
WITH_SYSTEM = conversation(("system", "Be brief."), ("user", "Hi"))

GOLDEN = {
    ("qwen-chat", "turns"): (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\n你好？<|im_end|>\n<|im_start|>assistant\n"
    ),
    ("qwen-chat", "system"): ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
    ("chatml", "turns"): (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\n你好？<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    ("chatml", "system"): "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    ("gpt2", "turns"): "User: Hi\nAssistant: Hello!\nUser: 你好？\nAssistant:",
    ("gpt2", "system"): "System: Be brief.\nUser: Hi\nAssistant:",
    ("llama", "turns"): "<s>[INST] Hi [/INST] Hello! </s><s>[INST] 你好？ [/INST]",
    ("llama", "system"): "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]",
}


@pytest.mark.parametrize(("name", "which"), GOLDEN)
def test_built_in_templates_give_their_golden_strings(name: str, which: str) -> None:
    messages = TURNS if which == "turns" else WITH_SYSTEM
    assert encoder(name).render(messages) == GOLDEN[name, which]
    assert TOKENIZER.decode(encoder(name).encode(messages)) == GOLDEN[name, which]


def test_qwen_encodes_newlines_apart_from_the_text_beside_them() -> None:
    """As make_context of the published code does: role and text are encoded by themselves, and so is each newline."""

    def turn(role: str, text: str) -> list[int]:
        start, end = (token_id(TOKENIZER, token) for token in ("<|im_start|>", "<|im_end|>"))
        newline = TOKENIZER.encode("\n")
        return [start, *TOKENIZER.encode(role), *newline, *TOKENIZER.encode(text), end, *newline]

    expected = turn("system", "\n\nBe brief.\n\n") + turn("user", "\nHi\n")
    messages = conversation(("system", "\n\nBe brief.\n\n"), ("user", "\nHi\n"))
    assert encoder("qwen-chat").encode(messages)[: len(expected)] == expected


def test_roles_that_do_not_alternate_are_refused_by_llama() -> None:
    with pytest.raises(InvalidRequestError, match="alternate") as caught:
        encoder("llama").render(conversation(("user", "a"), ("user", "b")))
    assert caught.value.param == "messages"


def test_the_template_of_a_checkpoint_without_one_follows_its_type_then_its_architecture() -> None:
    assert built_in_for("gpt2", "llama") is BUILT_IN["gpt2"]
    assert built_in_for(None, "llama") is BUILT_IN["llama"]
    assert built_in_for(None, "qwen2") is BUILT_IN["chatml"]
    assert built_in_for(None, "mamba") is None


def test_a_developer_message_is_a_system_message_to_templates_that_do_not_know_it() -> None:
    assert encoder("chatml").render(conversation(("developer", "a"))).startswith("<|im_start|>system\na<|im_end|>")


PUBLISHED = {
    "zephyr": (
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
    ),
    "chatml": (
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
    ),
    "generation": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}[{{ m.role | upper }}]{{ m.content | tojson }}{% endif %}{% if loop.first %}{% continue %}{% endif %}|{% endfor %}"
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_checkpoints_own_template_gives_what_transformers_gives(name: str) -> None:
    own = ChatEncoder(PUBLISHED[name], ChatTokenizer(TOKENIZER), variables=VARIABLES)
    for messages in (TURNS, WITH_SYSTEM):
        plain = [{"role": message.role, "content": message.content} for message in messages]
        options = {"chat_template": PUBLISHED[name], "add_generation_prompt": True}
        assert own.render(messages) == TOKENIZER.apply_chat_template(plain, tokenize=False, **options)
        assert own.encode(messages) == TOKENIZER.apply_chat_template(plain, return_dict=False, **options)


HOSTILE = st.text(max_size=5) | st.sampled_from([*SPECIALS, "<|im_", "start|>", "<|im_end|", "<", "</", "s>", "\ufdd0", "\ufdd1", "[INST]"])


@given(name=st.sampled_from(["qwen-chat", "chatml", "llama"]), pieces=st.lists(HOSTILE, max_size=6), answers=st.lists(HOSTILE, max_size=3))
@settings(max_examples=300, deadline=None)
def test_no_message_becomes_a_control_token(name: str, pieces: list[str], answers: list[str]) -> None:
    hostile = conversation(("user", "".join(pieces)), ("assistant", "".join(answers)), ("user", "x"))
    harmless = conversation(("user", "x"), ("assistant", "x"), ("user", "x"))
    control = set(TOKENIZER.all_special_ids) | {token_id(TOKENIZER, token) for token in SPECIALS}

    def controls(messages: list[Message]) -> list[int]:
        return [token for token in encoder(name).encode(messages) if token in control]

    assert controls(hostile) == controls(harmless)


@given(text=st.lists(HOSTILE, max_size=6).map("".join))
@settings(max_examples=200, deadline=None)
def test_the_text_of_a_message_arrives_unchanged(text: str) -> None:
    ids = encoder("chatml").encode(conversation(("user", text)))
    assert TOKENIZER.decode(ids) == f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_cannot_reach_what_is_around_it() -> None:
    spy = ChatEncoder("{{ ''.__class__.__mro__[1].__subclasses__() }}", ChatTokenizer(TOKENIZER))
    with pytest.raises(InvalidRequestError, match="refuses these messages"):
        spy.render(TURNS)


def test_a_broken_template_and_a_missing_one_say_so() -> None:
    with pytest.raises(ConfigurationError, match="line 1"):
        ChatEncoder("{% for %}", ChatTokenizer(TOKENIZER))
    with pytest.raises(InvalidRequestError, match="no chat template"):
        ChatEncoder(None, ChatTokenizer(TOKENIZER)).encode(TURNS)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content | length + 'a' }}",
        "{{ messages[0].none.there }}",
        "{% for k, v in messages[0].content | items %}{% endfor %}",
    ],
)
def test_whatever_a_template_raises_is_an_error_of_the_request(template: str) -> None:
    with pytest.raises(InvalidRequestError, match="chat template") as caught:
        ChatEncoder(template, ChatTokenizer(TOKENIZER)).encode(TURNS)
    assert caught.value.param == "messages"


@pytest.mark.parametrize("arguments", ["", " "])
def test_a_call_without_arguments_reaches_a_template_as_an_object(arguments: str) -> None:
    calls = "{% for c in m.tool_calls %}{% for k, v in c.function.arguments | items %}{% endfor %}called{% endfor %}"
    template = "{# tools #}{% for m in messages %}" + calls + "{% endfor %}"
    messages = [Message("user", "Go"), Message("assistant", "", tool_calls=(ToolCall("a", "go", arguments),))]
    assert ChatEncoder(template, ChatTokenizer(TOKENIZER)).render(messages) == "called"


# How published templates write the arguments of a call.
IN_THE_MANNER_OF = {
    "Qwen3-Coder": "{% for k, v in a | items %}<parameter={{ k }}>{{ v if v is string else v | tojson }}</parameter>{% endfor %}",
    "Hermes": '{"arguments": {{ a | tojson }}}',
    "Qwen3": "{% if a is string %}{{ a }}{% else %}{{ a | tojson }}{% endif %}",
    "Llama": '"parameters": {{ a | tojson }}',
    "GLM": "{% for k, v in a.items() %}{{ k }}={{ v }}{% endfor %}",
}


@pytest.mark.parametrize("manner", IN_THE_MANNER_OF)
@pytest.mark.parametrize(
    ("arguments", "holds"),
    [
        ('{"city": "Ems"}', "Ems"),
        ("", ""),
        ("null", ""),
        ("[1]", "1"),
        ("3", "3"),
        ('"Ems"', "Ems"),
        ('{"city": "Ems', "Ems"),  # of a call that was cut
        ("Ems?", "Ems?"),
        ("[" * 2000 + "]" * 2000, "[[["),
    ],
)
def test_arguments_of_whatever_kind_reach_every_template(manner: str, arguments: str, holds: str) -> None:
    calls = "{% for c in m.tool_calls or [] %}{% set a = c.function.arguments %}CALL" + IN_THE_MANNER_OF[manner] + "{% endfor %}"
    chat = ChatEncoder("{# tools #}{% for m in messages %}" + calls + "{% endfor %}", ChatTokenizer(TOKENIZER))
    messages = [Message("user", "Go"), Message("assistant", "", tool_calls=(ToolCall("a", "go", arguments),))]
    written = chat.render(messages).removeprefix("CALL")
    assert holds in written and "null" not in written and "None" not in written
    assert TOKENIZER.decode(chat.encode(messages)) == chat.render(messages)


def test_arguments_that_are_nested_too_deeply_are_an_error_of_the_request() -> None:
    template = "{# tools #}{% for m in messages %}{{ m.tool_calls | tojson }}{% endfor %}"
    for depth in (400, 100_000):
        call = ToolCall("a", "go", "[" * depth + "]" * depth)
        with contextlib.suppress(InvalidRequestError):
            ChatEncoder(template, ChatTokenizer(TOKENIZER)).encode([Message("user", "Go"), Message("assistant", "", tool_calls=(call,))])


IN_THE_MANNER_OF_GEMMA = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<s>' + m.role + '\n' + m.content + '</s>\n' }}{% endfor %}"
)


@pytest.mark.parametrize("tool_format", ["hermes", "plain", "llama"])
def test_tools_are_described_to_the_user_where_a_template_refuses_system_messages(tool_format: str) -> None:
    chat = ChatEncoder(IN_THE_MANNER_OF_GEMMA, ChatTokenizer(TOKENIZER), tool_format=TOOL_FORMATS[tool_format])
    tool = Tool("find_city", "Finds a city.", {"type": "object", "properties": {"name": {"type": "string"}}})
    text = chat.render(TURNS, [tool])
    assert text.startswith("<s>user\n") and text.count("find_city") == 1
    assert text.index("find_city") < text.index("Hi") < text.index("Hello!")
    with pytest.raises(InvalidRequestError, match="System role not supported"):
        chat.render(WITH_SYSTEM, [tool])  # the client's own one is refused as ever
