"""`web_search_options` of chat: the model may search the web, as with the tool of `/v1/responses`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from mm_gateway.api.responses.searches import OF_SIZE
from mm_gateway.backends.searching import FUNCTIONS, Searcher, SearchPlan
from mm_gateway.core import ChatInput, GenerationRequest, ToolUse
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol import ChatCompletionRequest
from mm_gateway.protocol.decoding import convert

FIELD = "web_search_options"


class _Options(msgspec.Struct, forbid_unknown_fields=True):
    search_context_size: Literal["low", "medium", "high"] | None = None
    user_location: Any = None


def chat_searches(body: ChatCompletionRequest, searcher: Searcher, ignored: list[str]) -> SearchPlan | None:
    """What the model may search; None: nothing. ignored: gets the paths of what is left out.

    Raises:
        InvalidRequestError: the options are wrong, or do not go with several choices or a grammar.
    """
    if body.web_search_options is None:
        return None
    options = convert(body.web_search_options, _Options, FIELD, None)
    if not searcher.has("web"):
        ignored.append(FIELD)
        return None
    if (body.n or 1) > 1:
        raise InvalidRequestError(f"{FIELD} is only allowed with n of 1", param=FIELD)
    if options.user_location is not None:
        ignored.append(f"{FIELD}.user_location")
    return SearchPlan({"web": OF_SIZE[options.search_context_size or "medium"]})


def with_search_functions(request: GenerationRequest, plan: SearchPlan) -> GenerationRequest:
    """The request with the functions that the plan needs, beside its own.

    Raises:
        InvalidRequestError: it has one of that name.
    """
    input = request.input
    assert isinstance(input, ChatInput)
    use = input.tools or ToolUse(())
    tools = tuple(FUNCTIONS[kind] for kind in plan.results)
    for tool in tools:
        if any(own.name == tool.name for own in use.tools):
            raise InvalidRequestError(f"{FIELD}: there is a function of the name '{tool.name}'", param=FIELD)
    places = use.places or tuple(range(len(use.tools)))
    beside = tuple(range(len(use.tools), len(use.tools) + len(tools)))
    use = msgspec.structs.replace(use, tools=(*use.tools, *tools), places=(*places, *beside))
    return msgspec.structs.replace(request, input=msgspec.structs.replace(input, tools=use))
