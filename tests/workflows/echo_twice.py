"""echo-twice: the model is asked for a title, then for a text under it. The example of docs/workflows.md."""

from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta

from mm_gateway.core import GenerationConfig, GenerationEvent, Message, TextDelta
from mm_gateway.workflows.parameters import Parameters
from mm_gateway.workflows.run import Run
from mm_gateway.workflows.workflow import Workflow


class EchoTwiceParameters(Parameters, frozen=True, kw_only=True):
    topic: str
    sentences: Annotated[int, Meta(ge=1, le=10, description="How long the text is")] = 3


class EchoTwice(Workflow[EchoTwiceParameters]):
    name = "echo-twice"
    description = "A title, and a text under it"
    subject = "topic"
    parameters = EchoTwiceParameters

    async def stages(self, run: Run, parameters: EchoTwiceParameters) -> AsyncIterator[GenerationEvent]:
        yield run.begin("title", f"a title for {parameters.topic}")
        asked = [Message(role="user", content=f"A title for {parameters.topic}")]
        title = run.ask(asked, GenerationConfig(max_new_tokens=12), think=False)
        async for progress in title.progress():
            yield progress
        yield run.end()
        for index in range(run.request.config.n):
            yield TextDelta(index, f"# {title.text}\n\n")
        yield run.begin("text")
        question = f"Write {parameters.sentences} sentences under the title {title.text}"
        async for event in run.ask([Message(role="user", content=question)], run.config(max_new_tokens=200)):
            yield event
        yield run.end()
        run.metadata["title"] = title.text
