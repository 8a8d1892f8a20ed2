"""Whatever raises in the engine, wherever: nobody waits for ever, and who is not concerned gets his answer."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, GenerationEvent, Usage
from mm_gateway.errors import EngineError, ModelUnavailableError
from mm_gateway.runtime.engine import engine_thread
from mm_gateway.runtime.engine.engine_thread import EngineThread
from mm_gateway.runtime.engine.forward.hidden_states import Pooler
from mm_gateway.runtime.engine.requests.generation import Generation, Outbox
from mm_gateway.runtime.engine.requests.sequence_text import SequenceText
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.kv_cache.allocators.slots import SlotAllocator
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from mm_gateway.runtime.sampling.sampler import Sampler
from mm_gateway.runtime.scheduling.scheduler import Scheduler

WAIT_S = 30
TEXT = GenerationConfig(max_new_tokens=12, temperature=0, ignore_eos=True)


class Engine:
    """An engine, and what it told of its failure."""

    def __init__(self, folder: Path) -> None:
        self.told: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        loaded = ModelLoader().load(ModelConfig(model_name=str(folder), device="cpu", dtype="fp32"))
        self.engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(), on_failure=self.told.put)


@pytest.fixture
def engine(gpt2_checkpoint: Path) -> Iterator[Engine]:
    made = Engine(gpt2_checkpoint)
    yield made
    within_bound(made.engine.close)


def within_bound(work: Callable[[], Any]) -> Any:
    """What `work` returns or raises; the test fails where it does neither."""
    outcome: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((work(), None))
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            outcome.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = outcome.get(timeout=WAIT_S)
    except queue.Empty:
        pytest.fail("it waits for ever")
    if error is not None:
        raise error
    return value


def read(generation: Generation) -> list[GenerationEvent] | BaseException:
    try:
        return within_bound(lambda: list(generation))
    except Exception as error:  # noqa: BLE001 - what the tests assert on
        return error


def raise_once(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> None:
    original = getattr(owner, method)
    armed = threading.Event()
    armed.set()

    def explode(*args: Any, **kwargs: Any) -> Any:
        if armed.is_set():
            armed.clear()
            raise RuntimeError(f"broken {method}")
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, method, explode)


def requests(engine: InferenceEngine) -> list[Generation]:
    """One of each kind: plain, with choices and penalties, echoed, embedded."""
    scored = GenerationConfig(max_new_tokens=4, temperature=0, logprobs=1, prompt_logprobs=1)
    several = GenerationConfig(max_new_tokens=6, n=3, seed=1, presence_penalty=0.5)
    return [
        engine.submit([[5, 6, 7]], TEXT),
        engine.submit([[8, 9]], several),
        engine.submit([[10, 11, 12, 13]], scored),
        engine.embed([[20, 21], [22]]),
    ]


FATAL = [
    (Scheduler, "schedule"),
    (Scheduler, "computed"),
    (Scheduler, "remove"),
    (Scheduler, "places"),
    (SlotAllocator, "allocate"),
    (SlotAllocator, "extend"),
    (SlotAllocator, "commit"),
    (SlotAllocator, "release"),
    (Sampler, "forget"),
    (Pooler, "forget"),
    (Outbox, "flush"),
    (EngineThread, "_count_released"),
]


@pytest.mark.parametrize(("owner", "method"), FATAL, ids=lambda value: getattr(value, "__name__", value))
def test_what_nobody_can_be_blamed_for_ends_the_engine_and_nobody_waits(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, owner: type, method: str
) -> None:
    raise_once(monkeypatch, owner, method)
    outcomes = [read(generation) for generation in submitted(engine.engine)]
    assert isinstance(within_bound(lambda: engine.told.get(timeout=WAIT_S)), RuntimeError)
    for outcome in outcomes:
        whole = isinstance(outcome, list) and isinstance(outcome[-1], Usage)
        assert whole or isinstance(outcome, EngineError | ModelUnavailableError)
    assert any(isinstance(outcome, EngineError) and "send the request again" in str(outcome) for outcome in outcomes)
    assert isinstance(engine.engine.failure, RuntimeError)
    with pytest.raises(ModelUnavailableError, match="send the request again") as refused:
        engine.engine.submit([[5]], TEXT)
    assert refused.value.retryable
    assert engine.told.empty()


def submitted(engine: InferenceEngine) -> list[Generation]:
    """As `requests`, but the engine may fail meanwhile."""
    try:
        return requests(engine)
    except ModelUnavailableError:
        failed = Generation(lambda _: None)
        failed.deliver([EngineError("The engine failed before all was submitted; send the request again")])
        return [failed]


@pytest.mark.parametrize(
    ("owner", "method"),
    [(SequenceText, "add"), (SequenceText, "score_prompt"), (Scheduler, "add")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_concerns_one_request_fails_it_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> None:
    raise_once(monkeypatch, owner, method)
    outcomes = [read(generation) for generation in requests(engine.engine)]
    failed = [outcome for outcome in outcomes if not isinstance(outcome, list)]
    assert len(failed) == 1 and isinstance(failed[0], EngineError)
    assert all(isinstance(outcome[-1], Usage) for outcome in outcomes if isinstance(outcome, list))
    assert engine.engine.failure is None
    assert len(engine.engine.generate("Hello", TEXT).text) > 0
    stats = engine.engine.stats()
    assert (stats.running, stats.waiting) == (0, 0)


def test_a_bad_embedding_fails_its_request_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> bytes:
        raise RuntimeError("broken unit_vector")

    monkeypatch.setattr("mm_gateway.runtime.engine.step_loop.unit_vector", explode)
    *texts, embedded = [read(generation) for generation in requests(engine.engine)]
    assert all(isinstance(outcome, list) for outcome in texts)
    assert isinstance(embedded, EngineError)
    assert engine.engine.failure is None


def test_a_callback_that_raises_does_not_keep_the_engine_from_ending(gpt2_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(_: BaseException) -> None:
        raise ValueError("nobody there")

    loaded = ModelLoader().load(ModelConfig(model_name=str(gpt2_checkpoint), device="cpu", dtype="fp32"))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(), on_failure=explode)
    raise_once(monkeypatch, Scheduler, "schedule")
    assert isinstance(read(engine.submit([[5]], TEXT)), EngineError)
    within_bound(engine.close)


async def test_readers_in_an_event_loop_learn_of_a_failure_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    raise_once(monkeypatch, Scheduler, "computed")
    generation = engine.engine.submit([[5, 6]], TEXT, loop=asyncio.get_running_loop())
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(EngineError, match="send the request again"):
            async for _ in generation:
                pass


def test_a_step_that_outlives_its_bound_is_logged_with_its_stack_and_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "hang_until_told" in record.getMessage():
                told.set()

    original = Scheduler.schedule

    def hang_until_told(*args: Any, **kwargs: Any) -> Any:
        assert told.wait(WAIT_S)
        return original(*args, **kwargs)

    listener = Listener()
    watchdog = logging.getLogger("mm_gateway.runtime.watchdog")
    watchdog.addHandler(listener)
    try:
        monkeypatch.setattr(Scheduler, "schedule", hang_until_told)
        monkeypatch.setattr(engine_thread, "STEP_BOUND_S", 0.05)
        events = read(engine.engine.submit([[5, 6, 7]], TEXT))
    finally:
        watchdog.removeHandler(listener)
    assert isinstance(events, list) and isinstance(events[-1], Usage)
    assert "a step of engine" in caplog.text
