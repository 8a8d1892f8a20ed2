"""The mock as a product: deterministic, obedient to limits, and failing on demand."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from mm_gateway.backends.mock.backend import MockBackend
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    CompletionInput,
    EmbeddingInput,
    GenerationConfig,
    GenerationRequest,
    Grammar,
    Message,
    Progress,
    TextDelta,
    Tool,
    ToolUse,
    Usage,
)
from mm_gateway.errors import (
    ContextLengthExceededError,
    GatewayError,
    InvalidRequestError,
    ModelUnavailableError,
    PermissionDeniedError,
    RateLimitError,
    UnsupportedParameterError,
    UpstreamError,
)

MOCK = MockBackend("mock", ModelConfig(model_name="mock", backend="mock"), created=0)


def chat(text: str, **config: Any) -> GenerationRequest:
    return GenerationRequest(request_id="r", model="mock", input=ChatInput((Message("user", text),)), config=GenerationConfig(**config))


async def events_of(request: GenerationRequest, backend: MockBackend = MOCK) -> list[Any]:
    return [event async for event in backend.generate(request)]


def text_of(events: list[Any], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta) and event.index == index)


async def test_the_same_request_gives_the_same_text_and_another_seed_another() -> None:
    texts = [text_of(await events_of(chat("Hi", seed=seed))) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert text_of(await events_of(chat("Hi", seed=1, temperature=0))) == text_of(await events_of(chat("Hi", seed=2, temperature=0)))


async def test_limits_are_obeyed_and_counted() -> None:
    *_, finished, usage = await events_of(chat("one two", max_new_tokens=5))
    assert finished == ChoiceFinished(0, "length")
    assert usage == Usage(2, 5)
    *_, finished, usage = await events_of(chat("!mock tokens=3", max_new_tokens=5))
    assert (finished, usage.completion_tokens) == (ChoiceFinished(0, "stop"), 3)
    *_, finished, usage = await events_of(chat("!mock tokens=3", max_new_tokens=5, ignore_eos=True))
    assert (finished, usage.completion_tokens) == (ChoiceFinished(0, "length"), 5)


async def test_stop_strings_across_tokens_end_the_text_and_never_leak() -> None:
    whole = text_of(await events_of(chat("!mock tokens=40")))
    stop = whole[30:45]
    events = await events_of(chat("!mock tokens=40", stop=(stop,)))
    assert text_of(events) == whole[: whole.index(stop)]
    assert events[-2] == ChoiceFinished(0, "stop", stop)


async def test_a_limit_that_is_clamped_to_the_context_is_no_error() -> None:
    small = MockBackend("mock", ModelConfig(model_name="mock", backend="mock", max_context_length=10), created=0)
    with pytest.raises(ContextLengthExceededError):
        await events_of(chat("!mock tokens=40", max_new_tokens=100), small)
    events = await events_of(chat("!mock tokens=40", max_new_tokens=100, clamp_to_context=True), small)
    assert events[-2:] == [ChoiceFinished(0, "length"), Usage(2, 8)]


async def test_choices_differ_and_each_finishes_once() -> None:
    events = await events_of(chat("Hi", n=3))
    assert len({text_of(events, index) for index in range(3)}) == 3
    assert sorted(event.index for event in events if isinstance(event, ChoiceFinished)) == [0, 1, 2]


async def test_echo_and_best_of() -> None:
    prompts = CompletionInput(("a b", "c"), echo=True)
    request = GenerationRequest(request_id="r", model="mock", input=prompts, config=GenerationConfig(n=1, max_new_tokens=2), best_of=3)
    events = await events_of(request)
    assert text_of(events, 0).startswith("a b")
    assert text_of(events, 1).startswith("c")
    assert events[-1] == Usage(3, 12)


async def test_loading_is_shown_as_progress() -> None:
    first, *_ = await events_of(chat("!mock load=0.01 tokens=1"))
    assert isinstance(first, Progress)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("400", InvalidRequestError),
        ("403", PermissionDeniedError),
        ("409", UpstreamError),
        ("429", RateLimitError),
        ("503", ModelUnavailableError),
        ("context", ContextLengthExceededError),
    ],
)
async def test_errors_come_on_demand_before_or_amid_the_text(error: str, kind: type[GatewayError]) -> None:
    with pytest.raises(kind):
        await events_of(chat(f"!mock error={error}"))
    seen = []
    with pytest.raises(kind):
        async for event in MOCK.generate(chat(f"!mock error={error} after=3")):
            seen.append(event)  # noqa: PERF401 - what came before the error is asserted
    assert len(text_of(seen).split()) == 3


async def test_only_the_last_message_gives_orders_so_that_an_agent_comes_to_an_end() -> None:
    request = chat("!mock tokens=2 call=clock")
    assert isinstance(request.input, ChatInput)
    answered = ChatInput((*request.input.messages, Message("tool", "It is noon.", tool_call_id="c")), ToolUse((Tool("clock"),)))
    assert len(text_of(await events_of(msgspec.structs.replace(request, input=answered))).split()) == 24


async def test_a_schema_gives_an_example_of_it() -> None:
    schema = {
        "type": "object",
        "properties": {
            "names": {"type": "array", "prefixItems": [{"const": "a"}, {"enum": ["b", "c"]}], "items": False},
            "parts": {"type": "array", "items": {"type": "string", "maxLength": 2}, "minItems": 3},
        },
    }
    text = text_of(await events_of(chat("Hi", grammar=Grammar("json_schema", json.dumps(schema)))))
    assert json.loads(text) == {"names": ["a", "b"], "parts": ["te", "te", "te"]}
    cut = await events_of(
        chat("!mock tokens=99", grammar=Grammar("choice", '["one two three", "four"]', "guided_choice"), max_new_tokens=2)
    )
    assert text_of(cut) == "one two" and ChoiceFinished(0, "length") in cut


async def test_a_text_that_follows_a_grammar_comes_in_pieces_like_any_other() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "email": {"type": "string", "format": "email"}}}
    events = await events_of(chat("Hi", grammar=Grammar("json_schema", json.dumps(schema))))
    pieces = [event.text for event in events if isinstance(event, TextDelta)]
    assert len(pieces) > 8 and all(pieces) and json.loads("".join(pieces))


async def test_what_it_cannot_follow_is_refused_by_name() -> None:
    assert text_of(await events_of(chat("Hi", grammar=Grammar("regex", "a", "guided_regex")))) == "a"
    with pytest.raises(UnsupportedParameterError) as caught:
        await events_of(chat("Hi", grammar=Grammar("regex", "a{9000}", "guided_regex")))
    assert caught.value.param == "guided_regex"


@pytest.mark.parametrize(
    "directive",
    [
        "error=418",
        "tokens=many",
        "colour=red",
        "delay=nan",
        "delay=inf",
        "delay=-1",
        "load=-1",
        "load=nan",
        "tokens=1e99",
        "tokens=-1",
        "after=-2",
    ],
)
async def test_a_wrong_directive_is_refused(directive: str) -> None:
    with pytest.raises(InvalidRequestError, match="!mock"):
        await events_of(chat(f"!mock {directive}"))


@pytest.mark.parametrize("directive", ["delay=nan", "delay=inf", "delay=-1", "load=-1", "load=nan", "load=1e9"])
async def test_a_time_that_is_none_is_refused(directive: str) -> None:
    with pytest.raises(InvalidRequestError, match="!mock"):
        await events_of(chat(f"!mock {directive}"))


async def test_its_context_has_an_end() -> None:
    small = MockBackend("mock", ModelConfig(model_name="mock", backend="mock", max_context_length=4), created=0)
    assert len(await events_of(chat("a b c", max_new_tokens=1), small)) == 4
    with pytest.raises(ContextLengthExceededError):
        await events_of(chat("a b c", max_new_tokens=2), small)


async def test_a_conversation_that_does_not_fit_loses_its_oldest_turns_where_that_is_asked_for() -> None:
    small = MockBackend("mock", ModelConfig(model_name="mock", backend="mock", max_context_length=32), created=0)
    turns = (Message("user", "word " * 30), Message("assistant", "Yes."), Message("user", "And?"))
    for truncate in (None, False):
        with pytest.raises(ContextLengthExceededError):
            await events_of(GenerationRequest(request_id="r", model="mock", input=ChatInput(turns, truncate=truncate)), small)
    events = await events_of(GenerationRequest(request_id="r", model="mock", input=ChatInput(turns, truncate=True)), small)
    assert events[-1].prompt_tokens == 1


async def turns_during(request: GenerationRequest) -> int:
    """How often another task had its turn while the request was answered."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(take_turns())
    await events_of(request)
    others.cancel()
    return turns


@pytest.mark.parametrize("best_of", [None, 128])
async def test_others_have_their_turn_while_many_choices_with_logprobs_are_written(best_of: int | None) -> None:
    prompt = CompletionInput(("!mock tokens=20",))
    config = GenerationConfig(n=64, logprobs=20)
    asked = GenerationRequest(request_id="r", model="mock", input=prompt, config=config, best_of=best_of)
    entries = 64 * 20 * 21
    assert await turns_during(asked) >= entries / 200


async def test_others_have_their_turn_while_text_is_held_back() -> None:
    whole = text_of(await events_of(chat("!mock tokens=180", n=64)), 0)
    assert await turns_during(chat("!mock tokens=180", n=64, stop=(whole + "!",))) >= 64 * 180 / 200


async def test_prompts_are_echoed_piece_by_piece() -> None:
    text = "word " * 1000
    asked = GenerationRequest(
        request_id="r",
        model="mock",
        input=CompletionInput((text,), echo=True),
        config=GenerationConfig(prompt_logprobs=5, logprobs=5, max_new_tokens=1),
    )
    events = [event for event in await events_of(asked) if isinstance(event, TextDelta)]
    assert text_of(events).startswith(text.strip())
    assert max(len(event.logprobs) for event in events) <= 64
    assert [score.logprob is None for event in events for score in event.logprobs].index(False) == 1


async def test_what_all_choices_have_together_is_bounded() -> None:
    prompts = CompletionInput(("!mock tokens=3000",) * 2048)
    with pytest.raises(InvalidRequestError, match="1048576 tokens") as caught:
        await events_of(GenerationRequest(request_id="r", model="mock", input=prompts))
    assert caught.value.param == "prompt"
    with pytest.raises(InvalidRequestError, match="300000 tokens"):
        await events_of(GenerationRequest(request_id="r", model="mock", input=EmbeddingInput(("word " * 30_000,) * 11)))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 10**12},
        {"type": "array", "minItems": 10**12},
        {"type": "array", "minItems": 9999, "items": {"type": "array", "minItems": 9999}},
    ],
)
async def test_a_schema_that_asks_for_too_much_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:  # by the engine's own limits, or the mock's
        await events_of(chat("Hi", grammar=Grammar("json_schema", json.dumps(schema))))
    assert caught.value.param == "response_format"


async def test_a_system_message_at_the_end_is_not_the_one_that_gives_orders() -> None:
    messages = (Message("user", "!mock tokens=3"), Message("system", "Be brief."))
    request = msgspec.structs.replace(chat("Hi"), input=ChatInput(messages))
    assert len(text_of(await events_of(request)).split()) == 3
