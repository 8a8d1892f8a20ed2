"""One browser for all tests of the page, a tab for each, and a gateway with models that stream, think, call, fail, load and lie."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.backends.local import LocalBackend
from mm_gateway.backends.mock.backend import MockBackend
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import ChoiceFinished, GenerationEvent, Progress, TextDelta, UrlCitation, Usage
from mm_gateway.errors import ModelUnavailableError
from mm_gateway.runtime.model_loader import ModelLoader
from mm_gateway.runtime.real_model_manager import RealModelManager
from mm_gateway.workflows.parameters import Parameters
from mm_gateway.workflows.run import Run
from mm_gateway.workflows.workflow import Workflow
from tests.support.browser import Complaints, installed_browser, running_browser
from tests.support.scripted_backend import ScriptedBackend
from tests.support.served import served

ADMIN_KEY = "operator-key"
HOSTILE = (
    "<img src=x onerror=alert(1)><script>alert(2)</script><svg onload=alert(3)>\n\n"
    '[a link](javascript:alert(4)) [another](https://example.org/"onmouseover="alert(5)) `<b>code</b>`\n\n'
    "```html\n</code></pre><iframe srcdoc='<script>alert(6)</script>'></iframe>\n```\n\n"
    "| <i>cell</i> | [x](data:text/html,<script>alert(7)</script>) |\n\n# <u>title</u>\n\n- <a href=javascript:alert(8)>item</a> [1] [2]"
)
HOSTILE_NAME = "<img src=x onerror=alert(9)>/\"'&amp;"


expect.set_options(timeout=15_000)


class HeldLoader(ModelLoader):
    """The real loader, whose loads stand at the half until `may_load`."""

    def __init__(self) -> None:
        super().__init__()
        self.may_load = threading.Event()

    def load(self, config: ModelConfig, **callbacks: Any) -> Any:
        callbacks["progress"](Progress("loading", "at the half", 0.5))
        assert self.may_load.wait(30)
        return super().load(config, **callbacks)


class LookUpParameters(Parameters, frozen=True, kw_only=True):
    query: str


class LookUp(Workflow[LookUpParameters]):
    """A search that found a source of the web and one that is an attack, then an answer that cites both."""

    name, description, subject, parameters = "look-up", "Looks it up", "query", LookUpParameters

    async def stages(self, run: Run, parameters: LookUpParameters) -> AsyncIterator[GenerationEvent]:
        yield run.begin("search", "searching")
        yield run.end(output_count=2, degraded="1 of 3 pages failed")
        yield run.begin("answer")
        async for event in run.ask(run.messages, run.config(max_new_tokens=9)):
            yield event
        # After 🍵, which is one character and two units of UTF-16.
        yield UrlCitation(0, 9, 12, "Tea", "https://example.org/tea")
        yield UrlCitation(0, 13, 16, "<b>Evil</b>", "javascript:alert(10)")
        yield run.end()


class Gateway:
    """app, on a port. loader: of its model `local`."""

    def __init__(self, app: GatewayApp, port: int, loader: HeldLoader) -> None:
        self.app = app
        self.url = f"http://127.0.0.1:{port}/"
        self.loader = loader


def scripted(name: str, text: str) -> ScriptedBackend:
    return ScriptedBackend([TextDelta(0, text), ChoiceFinished(0, "stop"), Usage(5, 4)], name=name)


@pytest.fixture(scope="session")
def gateway(llama_checkpoint: Path) -> Iterator[Gateway]:
    loader = HeldLoader()
    manager = RealModelManager(loader=loader)
    local = ModelConfig(model_name="local", path=str(llama_checkpoint), device="cpu")
    backends = [
        MockBackend("mock", ModelConfig(model_name="mock", backend="mock"), 0),
        scripted("tea", "It is 🍵: [1] [2]"),
        scripted("hostile", HOSTILE),
        scripted(HOSTILE_NAME, "I have a name"),
        ScriptedBackend([ModelUnavailableError(HOSTILE, retryable=False)], name="failing"),
        LocalBackend("local", local, manager, 0),
    ]
    catalog = Catalog({backend.info().id: backend for backend in backends}, workflows=[LookUp()], workflow_model="tea", manager=manager)
    app = create_app(Settings(server=ServerSettings(admin_keys=(ADMIN_KEY,), early_commit_s=0.2, heartbeat_s=0.1)), catalog)
    with served(app) as port:
        yield Gateway(app, port, loader)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    if installed_browser() is None:
        pytest.skip("no browser is installed: make browser")
    async with running_browser() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def tab(browser: Browser) -> AsyncIterator[Page]:
    """A tab without memory; it must have nothing to complain about in the end."""
    context = await browser.new_context(locale="en-US", viewport={"width": 1200, "height": 900})
    page = await context.new_page()
    page.set_default_timeout(15_000)
    complaints = Complaints(page)
    yield page
    await context.close()
    assert complaints.found == []
