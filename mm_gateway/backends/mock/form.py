"""What the mock's reply has to be: a call, a text that follows a grammar, or text as it comes."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from mm_gateway.backends.mock.call import called_tool
from mm_gateway.backends.mock.directives import Directives
from mm_gateway.backends.mock.examples import arguments_for, text_for
from mm_gateway.backends.mock.script import Script
from mm_gateway.backends.tool_schemas import read_schemas, tried
from mm_gateway.core import ChatInput, GenerationRequest


@dataclass(frozen=True)
class Form:
    """What a reply has to be.

    Attributes:
        text: all of it, before the calls; None: as it comes. calls: name and arguments, as JSON, of each function that it calls.
        ignored: paths of what was left out of the request. thought: what a script has the mock think before.
    """

    text: str | None = None
    calls: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    thought: str = ""


async def form_of(request: GenerationRequest, orders: Directives, script: Script | None = None) -> Form:
    """What the request, the orders in it and, where they leave it open, the script make of the reply."""
    ignored: tuple[str, ...] = ()
    if isinstance(request.input, ChatInput):  # there is no template that could have a use for variables
        ignored = tuple(f"chat_template_kwargs.{name}" for name in request.input.rendering.variables)
    ordered = orders.tokens is not None or orders.call is not None
    scripted = await script.reply_to(request) if script is not None and not ordered else None
    if isinstance(request.input, ChatInput) and request.input.tools is not None and not request.input.tools.shown_only:
        tools = request.input.tools.tools
        places = request.input.tools.places
        schemas = await read_schemas(tools, places)
        tool = called_tool(request.input, orders) if scripted is None else None
        if tool is not None or (scripted is not None and scripted.calls):
            schemas = await tried(tools, schemas, places)
        ignored += tuple(path for schema in schemas for path in schema.left_out)
        if tool is not None:
            arguments = await arguments_for(msgspec.structs.replace(tool, parameters=schemas[tools.index(tool)].schema))
            return Form("", ((tool.name, arguments),), ignored)
    if scripted is not None:
        return Form(scripted.text, tuple((call.name, call.json) for call in scripted.calls), ignored, scripted.thought)
    grammar = request.config.grammar
    return Form(await text_for(grammar) if grammar is not None else None, (), ignored)
