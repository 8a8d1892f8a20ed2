"""What the arguments of a request's tools are held to: the part of their schemas that can be enforced, and the names of the rest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count

import msgspec

from mm_gateway.chat_templates.tool_formats.format import ToolFormat, only_declared
from mm_gateway.core import Grammar, Tool, ToolUse
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError
from mm_gateway.runtime.grammars.enforceable import Enforceable, as_enforced, relaxed
from mm_gateway.runtime.grammars.json_schema import check_schema
from mm_gateway.runtime.grammars.trials import TRIALS
from mm_gateway.work_pools import ENCODING


async def read_schemas(tools: Sequence[Tool], places: Sequence[int] = ()) -> list[Enforceable]:
    """What the arguments of each tool are held to, if it compiles. places: as of a ToolUse.

    Raises:
        InvalidRequestError: a schema is too large, that of a strict tool cannot be enforced, or a grammar is wrong; names the tool.
    """
    for tool in tools:
        if tool.input_grammar is not None:
            await TRIALS.checked(tool.input_grammar)
    return [await ENCODING.run(_read, tool, _parameters_of_tool(place)) for tool, place in zip(tools, places or count(), strict=False)]


async def tried(tools: Sequence[Tool], schemas: Sequence[Enforceable], places: Sequence[int] = ()) -> list[Enforceable]:
    """The same where they compile, else any object; the error of a tool that is strict."""
    given = zip(tools, schemas, places or count(), strict=False)
    return [await _tried(tool, schema, _parameters_of_tool(place)) for tool, schema, place in given]


def unheld_paths(form: ToolFormat, use: ToolUse, schemas: Sequence[Enforceable]) -> list[str]:
    """Paths of what a format, beside what no grammar can, does not hold arguments to.

    Raises:
        UnsupportedParameterError: the tool is strict; names the first.
    """
    found: list[str] = []
    for tool, (schema, _), place in zip(use.tools, schemas, use.places or count(), strict=False):
        paths = [f"{_parameters_of_tool(place)}.{path}" for path in form.unheld(msgspec.structs.replace(tool, parameters=schema))]
        if paths and tool.strict:
            raise UnsupportedParameterError(
                f"{paths[0]}: in {form.name}, the format of this model's calls, an output cannot be held to this keyword as it is "
                "used here. Leave it out, and check the output for it yourself",
                param=paths[0],
            )
        found += paths
    return found


def _read(tool: Tool, at: str) -> Enforceable:
    check_schema(tool.parameters, at)
    schema = only_declared(tool.parameters if tool.parameters is not None else {"properties": {}})
    if tool.strict:
        return Enforceable(as_enforced(schema, at), ())
    found = relaxed({"additionalProperties": True, **schema})  # as it is now: what is left out must not close it
    return Enforceable(found.schema, tuple(f"{at}.{path}" for path in found.left_out))


async def _tried(tool: Tool, schema: Enforceable, at: str) -> Enforceable:
    try:
        await TRIALS.checked(Grammar("json_schema", json.dumps(schema.schema), at))
    except InvalidRequestError:
        if tool.strict:
            raise
        return Enforceable({"type": "object"}, (at,))  # where in it the fault is, the compiler does not say
    return schema


def _parameters_of_tool(index: int) -> str:
    return f"tools[{index}].function.parameters"
