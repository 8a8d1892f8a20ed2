"""What the mock's reply has to be: a call, a text that follows a grammar, or text as it comes."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from mm_gateway.backends.mock.call import called_tool
from mm_gateway.backends.mock.directives import Directives
from mm_gateway.backends.mock.examples import arguments_for, text_for
from mm_gateway.backends.tool_schemas import read_schemas, tried
from mm_gateway.core import ChatInput, GenerationRequest, Tool


@dataclass(frozen=True)
class Form:
    """What a reply has to be.

    Attributes:
        text: all of it; None: as it comes. tool: the one that it calls, with the text as its arguments.
        ignored: paths of what was left out of the request.
    """

    text: str | None = None
    tool: Tool | None = None
    ignored: tuple[str, ...] = ()


async def form_of(request: GenerationRequest, orders: Directives) -> Form:
    ignored: tuple[str, ...] = ()
    if isinstance(request.input, ChatInput):  # there is no template that could have a use for variables
        ignored = tuple(f"chat_template_kwargs.{name}" for name in request.input.rendering.variables)
    if isinstance(request.input, ChatInput) and request.input.tools is not None:
        tools = request.input.tools.tools
        places = request.input.tools.places
        schemas = await read_schemas(tools, places)
        tool = called_tool(request.input, orders)
        if tool is not None:
            schemas = await tried(tools, schemas, places)
        ignored += tuple(path for schema in schemas for path in schema.left_out)
        if tool is not None:
            return Form(await arguments_for(msgspec.structs.replace(tool, parameters=schemas[tools.index(tool)].schema)), tool, ignored)
    grammar = request.config.grammar
    return Form(await text_for(grammar) if grammar is not None else None, None, ignored)
