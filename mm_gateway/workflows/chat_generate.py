"""chat-generate: a conversation that the gateway remembers. History, context, answer, store.

With a session id the request brings only what is new, and what was said before comes from the session. Its turn is kept once the
reply is complete: a request that fails or is cancelled leaves nothing behind. Of several choices the first one is kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Self

from msgspec import Meta

from mm_gateway.chat_templates.history import turn_starts
from mm_gateway.configuration.model_config import ModelType
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import GenerationEvent, Message
from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.conversation import ConversationManager
from mm_gateway.storage.sessions import Session
from mm_gateway.workflows.parameters import Parameters
from mm_gateway.workflows.run import Run
from mm_gateway.workflows.workflow import Workflow

if TYPE_CHECKING:
    from mm_gateway.runtime.inference_engine import InferenceEngine

MAX_ID_CHARACTERS = 256


class ChatGenerateParameters(Parameters, frozen=True, kw_only=True):
    message: str
    session_id: Annotated[
        str | None, Meta(description=f"Any text of 1 to {MAX_ID_CHARACTERS} characters; the same as metadata.session_id")
    ] = None
    max_history: Annotated[int, Meta(ge=0, le=1000, description="Turns before the message that the model sees, the newest")] = 10
    temperature: Annotated[float, Meta(ge=0, le=2, description="0.7 where the request has none either")] | None = None
    system_prompt: Annotated[str | None, Meta(description="Said before everything, of this request only")] = None


class ChatGenerateWorkflow(Workflow[ChatGenerateParameters]):
    """`execute` returns the answer.

    Args:
        conversation_manager: keeps the sessions; None: they are kept in memory. The rest as for every workflow.
    """

    name = "chat-generate"
    description = "A conversation that is remembered by metadata.session_id"
    subject = "message"
    subject_characters = None  # the model's context bounds it
    parameters = ChatGenerateParameters
    serves = frozenset({"logprobs", "json_object", "grammar", "ends"})

    def __init__(
        self,
        inference_engine: InferenceEngine | None = None,
        conversation_manager: ConversationManager | None = None,
        *,
        use_real_models: bool = False,
        language: str | None = None,
        model_type: ModelType | None = None,
    ) -> None:
        super().__init__(inference_engine, use_real_models=use_real_models, language=language, model_type=model_type)
        self._conversations = conversation_manager or ConversationManager()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(conversation_manager=ConversationManager.from_settings(settings))

    async def close(self) -> None:
        self._conversations.close()

    async def stages(self, run: Run, parameters: ChatGenerateParameters) -> AsyncIterator[GenerationEvent]:
        id = _session_id(run, parameters)
        system, said = _parts(run.messages)
        if parameters.system_prompt is not None and system:
            raise InvalidRequestError("Give workflow.system_prompt or a system message, not both", param="workflow.system_prompt")
        if parameters.system_prompt is not None:
            system = [Message(role="system", content=parameters.system_prompt)]
        elif not system and self._conversations.system_prompt is not None:
            system = [Message(role="system", content=self._conversations.system_prompt)]
        async with AsyncExitStack() as stack:
            session: Session | None = None
            yield run.begin("history", "reading the session, after its earlier requests" if id is not None else "")
            if id is not None:
                async with run.deadline("the session, which an earlier request has"):
                    session = await stack.enter_async_context(self._conversations.session(id, run.request.principal))
            history = [*(session.history if session is not None else ()), *said[:-1]]
            yield run.end(output_count=len(turn_starts(history)))

            yield run.begin("context", input_count=len(history))
            seen = [*system, *_newest(history, parameters.max_history), said[-1]]
            yield run.end(output_count=len(seen))

            yield run.begin("generate", "answering", input_count=len(seen))
            config = run.config(temperature=0.7 if parameters.temperature is None else parameters.temperature)
            call = run.ask(seen, config)
            async for event in call:
                yield event
            yield run.end()

            if session is not None:
                yield run.begin("store", input_count=len(said))
                async with run.deadline("the store of sessions"):
                    await session.append([*said, Message(role="assistant", content=call.text)])
                yield run.end()
                run.metadata["session_id"] = id


def _session_id(run: Run, parameters: ChatGenerateParameters) -> str | None:
    given = {"workflow.session_id": parameters.session_id, "metadata.session_id": run.request.metadata.get("session_id")}
    found = {param: id for param, id in given.items() if id is not None}
    for param, id in found.items():
        if not 1 <= len(id) <= MAX_ID_CHARACTERS:
            raise InvalidRequestError(f"{param} must have 1 to {MAX_ID_CHARACTERS} characters, got {len(id)}", param=param)
    if len(set(found.values())) > 1:
        raise InvalidRequestError("workflow.session_id and metadata.session_id differ; give one of them", param="workflow.session_id")
    return next(iter(found.values()), None)


def _parts(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """The system messages at the beginning, and the rest."""
    begin = next(index for index, message in enumerate(messages) if message.role not in ("system", "developer"))
    return list(messages[:begin]), list(messages[begin:])


def _newest(history: Sequence[Message], turns: int) -> Sequence[Message]:
    starts = turn_starts(history)
    return history[starts[-turns] :] if 0 < turns <= len(starts) else history if turns else ()
