"""search-qa over real pages and a real search server on loopback: what each step does, how each degrades, what the model is asked."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from mm_gateway.backends.engine_backend import EngineBackend
from mm_gateway.configuration.search_settings import SearchSettings
from mm_gateway.configuration.settings import StorageSettings
from mm_gateway.core import (
    Backend,
    ChatInput,
    ChoiceFinished,
    GenerationConfig,
    GenerationEvent,
    GenerationRequest,
    Message,
    ModelInfo,
    Progress,
    TextDelta,
    UrlCitation,
    Usage,
    WorkflowOutcome,
)
from mm_gateway.errors import ContextLengthExceededError, EngineError, InvalidRequestError, SearchError
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelConfig
from mm_gateway.runtime.real_model_manager import RealModelManager
from mm_gateway.search.results import SearchResult
from mm_gateway.workflows.backend import WorkflowBackend
from mm_gateway.workflows.prompts import Passage, answer_messages
from mm_gateway.workflows.search_qa import NOTHING_FOUND, SearchQAWorkflow
from tests.support import checkpoints
from tests.support.scripted_backend import ScriptedBackend, Step
from tests.support.web_site import WebSite, article, redirect, reply, searxng, silent, web_site

ANSWER = [TextDelta(0, "In February ["), TextDelta(0, "2"), TextDelta(0, "]."), ChoiceFinished(0, "stop"), Usage(9, 4)]
PORT = "The harbour of Tallinn freezes in February, and icebreakers keep it open for the ferries to Helsinki."
RIGA = "The harbour of Riga freezes in January, when the Daugava river brings ice from the east."
TWO = [SearchResult("A", "https://a.example", "", PORT), SearchResult("B", "https://b.example", "", RIGA)]
QUESTION = "When does the harbour of Tallinn freeze?"


class Model(ScriptedBackend):
    """Plays an answer; its context is as long as it is told."""

    def __init__(self, script: list[Step] | None = None, context_length: int | None = 4096) -> None:
        super().__init__(ANSWER if script is None else script, "model")
        self.context_length = context_length

    def info(self) -> ModelInfo:
        return ModelInfo(id="model", created=0, context_length=self.context_length)


class Provider:
    """Finds what it was given."""

    def __init__(self, results: list[SearchResult] | SearchError) -> None:
        self.results = results
        self.asked: list[tuple[str, int, str]] = []

    async def search(self, query: str, max_results: int, language: str) -> list[SearchResult]:
        self.asked.append((query, max_results, language))
        if isinstance(self.results, SearchError):
            raise self.results
        return self.results[:max_results]

    async def close(self) -> None:
        pass


def pages(site: WebSite, *names: str) -> list[SearchResult]:
    return [SearchResult(name.title(), f"{site.address}/{name}", f"Snippet of {name}") for name in names]


async def ask(
    model: Backend,
    provider: Provider | None = None,
    question: str = QUESTION,
    /,
    *,
    config: GenerationConfig | None = None,
    settings: SearchSettings | None = None,
    workflow: SearchQAWorkflow | None = None,
    **parameters: Any,
) -> list[GenerationEvent]:
    settings = settings or SearchSettings(allow_private_addresses=True, page_timeout_s=30)
    workflow = workflow or SearchQAWorkflow(provider=provider, settings=settings)
    backend = WorkflowBackend("mm-orch/search-qa", workflow, model, created=0)
    request = GenerationRequest(
        request_id="r",
        model="mm-orch/search-qa",
        input=ChatInput((Message(role="user", content=question),)),
        config=config or GenerationConfig(),
        workflow=parameters,
    )
    return [event async for event in backend.generate(request)]


def text_of(events: list[GenerationEvent], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta) and event.index == index)


def outcome_of(events: list[GenerationEvent]) -> WorkflowOutcome:
    return next(event for event in events if isinstance(event, WorkflowOutcome))


def prompt_of(model: Model) -> str:
    (request,) = model.requests
    assert isinstance(request.input, ChatInput)
    return request.input.messages[-1].content


async def test_searches_fetches_and_answers_with_numbered_sources_and_citations() -> None:
    results = [{"url": "", "title": "Riga", "content": "About Riga"}, {"url": "", "title": "Tallinn", "content": "About Tallinn"}]
    site_pages = {"/riga": reply(article("Riga", RIGA)), "/tallinn": reply(article("Tallinn", PORT))}
    async with web_site(site_pages) as site:
        results[0]["url"], results[1]["url"] = f"{site.address}/riga", f"{site.address}/tallinn"
        site.pages["/search"] = searxng(results)
        model = Model()
        settings = SearchSettings(provider="searxng", searxng_url=site.address, allow_private_addresses=True)
        events = await ask(model, settings=settings)
        asked, (citation,) = model.requests[0], [event for event in events if isinstance(event, UrlCitation)]
        text = text_of(events)
        assert text == "In February [2]."
        assert text[citation.start_index : citation.end_index] == "[2]"
        assert (citation.title, citation.url) == ("Tallinn", f"{site.address}/tallinn")
        passages = [Passage("Riga", RIGA), Passage("Tallinn", PORT)]
        assert asked.input == ChatInput(tuple(answer_messages(QUESTION, passages, "en")))
        assert asked.config == GenerationConfig(max_new_tokens=512, temperature=0.7, top_p=0.9)
        outcome = outcome_of(events)
        assert outcome.metadata["sources"] == [
            {"title": "Riga", "url": f"{site.address}/riga", "snippet": "About Riga"},
            {"title": "Tallinn", "url": f"{site.address}/tallinn", "snippet": "About Tallinn"},
        ]
    assert outcome.metadata["query"] == QUESTION
    assert [(step.name, step.input_count, step.output_count, step.degraded) for step in outcome.steps] == [
        ("search", 1, 2, False),
        ("fetch", 2, 2, False),
        ("summarize", 2, 2, False),
        ("answer", 2, 1, False),
    ]
    assert not outcome.degraded
    stages = [event.stage for event in events if isinstance(event, Progress)]
    assert list(dict.fromkeys(stages)) == ["search", "fetch", "summarize", "answer"]


async def test_the_citation_follows_the_piece_of_text_that_completes_it() -> None:
    events = await ask(Model(), Provider(TWO))
    kinds = [event for event in events if isinstance(event, TextDelta | UrlCitation)]
    assert kinds[2:] == [TextDelta(0, "]."), UrlCitation(0, 12, 15, "B", "https://b.example")]


async def test_every_choice_has_citations_of_its_own() -> None:
    script: list[Step] = [TextDelta(1, "[1"), TextDelta(0, "x [2]"), TextDelta(1, "]")]
    script += [ChoiceFinished(0, "stop"), ChoiceFinished(1, "length"), Usage(1, 2)]
    model = Model(script)
    events = await ask(model, Provider(TWO), config=GenerationConfig(n=2))
    citations = [(event.index, event.start_index, event.end_index, event.title) for event in events if isinstance(event, UrlCitation)]
    assert citations == [(0, 2, 5, "B"), (1, 0, 3, "A")]
    assert [event.finish_reason for event in events if isinstance(event, ChoiceFinished)] == ["stop", "length"]


async def test_the_requests_own_parameters_win() -> None:
    provider, model = Provider([SearchResult("A", "https://a.example", "", PORT)] * 9), Model()
    config = GenerationConfig(max_new_tokens=50, temperature=0.0, top_p=1.0, seed=4, stop=("x",))
    events = await ask(model, provider, "港口？ harbour", config=config, max_results=7, include_sources=False, language="en")
    assert model.requests[0].config == config
    assert provider.asked == [("港口？ harbour", 7, "en")]
    assert prompt_of(model).startswith("Sources:")
    assert "sources" not in outcome_of(events).metadata


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"max_results": 0}, "workflow.max_results"),
        ({"max_results": 21}, "workflow.max_results"),
        ({"language": "fr"}, "workflow.language"),
        ({"include_sources": "yes"}, "workflow.include_sources"),
        ({"provider": "ddgs"}, "workflow.provider"),
    ],
)
async def test_wrong_parameters_are_named(parameters: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await ask(Model(), Provider([]), **parameters)
    assert caught.value.param == param


async def test_a_page_that_fails_is_left_out_and_the_numbers_follow() -> None:
    site_pages = {"/tallinn": reply(article("Tallinn", PORT)), "/broken": b"no HTTP", "/loop": redirect("/loop")}
    async with web_site(site_pages) as site:
        model = Model()
        events = await ask(model, Provider(pages(site, "broken", "gone", "tallinn", "loop")))
    outcome = outcome_of(events)
    assert [source["title"] for source in outcome.metadata["sources"]] == ["Tallinn"]
    fetch = outcome.steps[1]
    assert (fetch.success, fetch.degraded, fetch.input_count, fetch.output_count) == (True, True, 4, 1)
    assert fetch.error is not None
    assert all(part in fetch.error for part in ("3 of 4 pages", "cannot be fetched", "status 404", "redirects"))
    assert outcome.degraded
    assert not [event for event in events if isinstance(event, UrlCitation)]  # there is no source 2
    assert "[1] Tallinn\n" in prompt_of(model)


async def test_where_no_page_can_be_read_the_snippets_serve() -> None:
    async with web_site({}) as site:
        model = Model()
        outcome = outcome_of(await ask(model, Provider(pages(site, "a", "b"))))
    assert "[1] A\nSnippet of a\n\n[2] B\nSnippet of b" in prompt_of(model)
    assert outcome.steps[1].degraded and "snippets" in (outcome.steps[1].error or "")
    assert len(outcome.metadata["sources"]) == 2


async def test_private_pages_are_not_fetched_unless_that_is_allowed() -> None:
    async with web_site({"/a": reply(article("A", PORT))}) as site:
        outcome = outcome_of(await ask(Model(), Provider(pages(site, "a")), settings=SearchSettings()))
        assert not site.requests
    assert "not on the public internet" in (outcome.steps[1].error or "")


@pytest.mark.parametrize(("question", "language"), [("What is a xylophone?", "en"), ("什么是木琴？", "zh")])
async def test_nothing_found_is_said_without_asking_the_model(question: str, language: str) -> None:
    model = Model()
    events = await ask(model, Provider([]), question, config=GenerationConfig(n=2))
    assert text_of(events, 0) == text_of(events, 1) == NOTHING_FOUND[language]  # type: ignore[index]
    assert not model.requests
    outcome = outcome_of(events)
    assert outcome.degraded and outcome.metadata["sources"] == []
    assert [event.finish_reason for event in events if isinstance(event, ChoiceFinished)] == ["stop", "stop"]
    assert events[-1] == Usage(0, 0)


async def test_pages_and_snippets_that_all_fail_are_nothing_found() -> None:
    async with web_site({}) as site:
        events = await ask(model := Model(), Provider([SearchResult("A", f"{site.address}/a", "")]))
    assert text_of(events) == NOTHING_FOUND["en"]
    assert not model.requests


async def test_a_search_that_fails_is_an_error() -> None:
    with pytest.raises(SearchError, match="switched off"):
        await ask(Model(), Provider(SearchError("switched off", retryable=False)))


async def test_an_error_of_the_model_is_the_requests() -> None:
    with pytest.raises(EngineError):
        await ask(Model([TextDelta(0, "a"), EngineError("broken")]), Provider([SearchResult("A", "https://a.example", "", PORT)]))


async def test_long_sources_are_cut_to_what_matters_and_fit_the_context() -> None:
    filler = "\n\n".join(f"Paragraph {number} is about something else altogether." for number in range(2000))
    found = [SearchResult(f"S{number}", f"https://{number}.example", "", f"{filler}\n\n{PORT}\n\n{filler}") for number in range(5)]
    model = Model(context_length=2048)
    outcome = outcome_of(await ask(model, Provider(found)))
    assert prompt_of(model).count(PORT) == 5
    assert len(prompt_of(model)) / 3 < 2048 - 512
    assert not outcome.degraded


async def test_a_small_context_gets_fewer_sources_and_says_so() -> None:
    found = [SearchResult(f"S{number}", f"https://{number}.example", "", f"{PORT}\n\n{RIGA}") for number in range(5)]
    model = Model(context_length=512)
    outcome = outcome_of(await ask(model, Provider(found)))
    assert len(outcome.metadata["sources"]) == 1
    assert outcome.steps[2].degraded and "4 of 5 sources" in (outcome.steps[2].error or "")
    assert model.requests[0].config.max_new_tokens == 256
    with pytest.raises(ContextLengthExceededError):
        await ask(Model(context_length=512), Provider(found), config=GenerationConfig(max_new_tokens=400))


async def test_a_client_that_goes_ends_search_and_fetches() -> None:
    async with web_site({"/a": silent, "/b": silent}) as site:
        settings = SearchSettings(allow_private_addresses=True, page_timeout_s=60)
        workflow = SearchQAWorkflow(provider=Provider(pages(site, "a", "b")), settings=settings)
        request = GenerationRequest(request_id="r", model="m", input=ChatInput((Message(role="user", content=QUESTION),)))
        events = WorkflowBackend("m", workflow, Model(), created=0).generate(request)

        async def read() -> None:
            async with aclosing(events):  # type: ignore[type-var]
                async for _ in events:
                    pass

        task = asyncio.create_task(read())
        while len(site.requests) < 2:  # noqa: ASYNC110 - the site keeps its requests in a list
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait_for(site.dropped.wait(), 5)
        with pytest.raises(asyncio.CancelledError):
            await task


def test_the_python_class_answers_offline_from_the_own_documentation(tmp_path: Path) -> None:
    workflow = SearchQAWorkflow(storage=StorageSettings(folder=str(tmp_path)))
    result = workflow.execute({"query": "What does max_cached_models mean?", "max_results": 3})
    assert result.status == "success" and isinstance(result.result, str) and result.result
    assert 1 <= len(result.metadata["sources"]) <= 3
    assert SearchQAWorkflow(language="zh").execute({"query": "xyzzy"}).result == NOTHING_FOUND["zh"]
    assert SearchQAWorkflow(language="zh").execute({"query": "xyzzy"}).status == "partial"


def test_a_real_checkpoint_is_asked_what_fits_it_by_its_own_tokenizer_on_whatever_event_loop(tmp_path: Path) -> None:
    folder = checkpoints.qwen2(tmp_path / "qwen2", max_position_embeddings=2048)
    manager = RealModelManager(max_cached_models=1)
    loaded = manager.load_model(ModelConfig(model_name="tests/qwen2", path=str(folder), device="cpu"))
    engine = InferenceEngine(model=loaded.model, tokenizer=loaded.tokenizer, device=loaded.device)
    workflow = SearchQAWorkflow(storage=StorageSettings(folder=str(tmp_path)))
    try:
        for question in ("What does keep_alive do?", "keep_alive 是什么？"):
            model, config = EngineBackend(engine), GenerationConfig(max_new_tokens=500, stop=(" ", "e", "a", "\n"))
            events = asyncio.run(ask(model, None, question, workflow=workflow, config=config))
            (usage,) = (event for event in events if isinstance(event, Usage))
            # Its tokenizer makes about a token of a byte, so the sources fill all that is left of the context.
            assert 1000 < usage.prompt_tokens <= 2048 - 500
            assert usage.stages[0].stage == "answer"
    finally:
        engine.close()
        manager.close()
