"""From `tools` and `tool_choice` of `/v1/messages` to what may and must be called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mm_gateway.api.tools import OneFunction, functions_of, tool_use, unserved_tool
from mm_gateway.backends.searching import FUNCTIONS, MAX_SEARCHES, Searcher, SearchPlan
from mm_gateway.core import Tool, ToolUse
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol.decoding import convert
from mm_gateway.protocol.message_request import CountTokensRequest, MessageToolChoice
from mm_gateway.protocol.messages import GivenTool

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_DATED = re.compile(r"(?P<kind>[a-z0-9_]+?)_(?P<date>\d{8})")

_EDITS: Mapping[str, Any] = {
    "path": {"type": "string", "description": "The file or folder, as an absolute path."},
    "view_range": {
        "type": "array",
        "items": {"type": "integer"},
        "minItems": 2,
        "maxItems": 2,
        "description": "view: the first and the last line, counted from 1; -1: the end.",
    },
    "file_text": {"type": "string", "description": "create: the whole content."},
    "old_str": {"type": "string", "description": "str_replace: the text to be replaced, which stands there exactly once."},
    "new_str": {"type": "string", "description": "str_replace: what takes its place."},
    "insert_line": {"type": "integer", "description": "insert: the line after which the text goes; 0: in front."},
    "insert_text": {"type": "string", "description": "insert: the text."},
}


def _commands(names: Sequence[str], properties: Mapping[str, Any]) -> dict[str, Any]:
    command = {"type": "string", "enum": list(names), "description": "What to do."}
    return {"type": "object", "properties": {"command": command, **properties}, "required": ["command"], "additionalProperties": False}


_BASH = Tool(
    "bash",
    "Run a command in a bash shell that stays open between calls.",
    {
        "type": "object",
        "properties": {
            "command": {"type": "string", "description": "The command."},
            "restart": {"type": "boolean", "description": "True: start the shell anew, in place of a command."},
        },
        "additionalProperties": False,
    },
)
_VIEW_AND_EDIT = ("view", "create", "str_replace", "insert")
_EDITOR = "View, create and change files."
_INSERTED = {**_EDITS, "new_str": {"type": "string", "description": "str_replace: what takes its place; insert: the text."}}
del _INSERTED["insert_text"]
_MEMORY = {
    **_EDITS,
    "path": {"type": "string", "description": "The file or folder, below /memories."},
    "old_path": {"type": "string", "description": "rename: its path."},
    "new_path": {"type": "string", "description": "rename: its new path."},
}
DEFINED: Mapping[str, Tool] = {
    "bash_20241022": _BASH,
    "bash_20250124": _BASH,
    "text_editor_20241022": Tool("str_replace_editor", _EDITOR, _commands((*_VIEW_AND_EDIT, "undo_edit"), _INSERTED)),
    "text_editor_20250124": Tool("str_replace_editor", _EDITOR, _commands((*_VIEW_AND_EDIT, "undo_edit"), _INSERTED)),
    "text_editor_20250429": Tool("str_replace_based_edit_tool", _EDITOR, _commands(_VIEW_AND_EDIT, _EDITS)),
    "text_editor_20250728": Tool("str_replace_based_edit_tool", _EDITOR, _commands(_VIEW_AND_EDIT, _EDITS)),
    "memory_20250818": Tool(
        "memory", "Notes that outlive the conversation, in files.", _commands((*_VIEW_AND_EDIT, "delete", "rename"), _MEMORY)
    ),
}
"""Tools of Anthropic's that clients run, by type, with the shape that its documentation gives them."""


_WEB_SEARCH = re.compile(r"web_search_\d{8}")
"""Types of Anthropic's tool of its servers that the gateway's own search serves."""


def read_searches(body: CountTokensRequest, searcher: Searcher, ignored: list[str]) -> SearchPlan | None:
    """What the model may search; None: nothing. ignored: gets the paths of what is left out.

    Raises:
        InvalidRequestError: domains are allowed and blocked at once.
    """
    for index, given in enumerate(body.tools or ()):
        if not _WEB_SEARCH.fullmatch(str(given.get("type"))) or not searcher.has("web"):
            continue
        at = f"tools[{index}]"
        tool = convert(dict(given), GivenTool, at)
        if tool.allowed_domains and tool.blocked_domains:
            raise InvalidRequestError(f"{at}: allowed_domains and blocked_domains exclude each other", param=f"{at}.blocked_domains")
        if tool.user_location:
            ignored.append(f"{at}.user_location")
        domains, blocked = tuple(tool.allowed_domains or ()), tuple(tool.blocked_domains or ())
        return SearchPlan({"web": None}, domains, tool.max_uses or MAX_SEARCHES, blocked)
    return None


def read_tools(body: CountTokensRequest, searcher: Searcher, ignored: list[str], unknown: list[str] | None = None) -> ToolUse | None:
    """What may and must be called; None: nothing.

    Args:
        searcher: what can be searched. ignored: gets the paths of what is left out. unknown: as for `decode`.

    Raises:
        InvalidRequestError: a name, a schema or a choice is wrong. UnsupportedParameterError: a tool that cannot be run has to be.
    """
    given = body.tools or []
    tools = [_Given(f"tools[{index}]", tool, searcher, unknown) for index, tool in enumerate(given)]
    choice = _choice(body.tool_choice, tools)
    functions = functions_of(
        [tool.kind for tool in tools],
        lambda index: tools[index].function(ignored),
        choice,
        ignored,
        {tool.kind for tool in tools if not tool.served},
    )
    parallel = body.tool_choice is None or not body.tool_choice.disable_parallel_tool_use
    return tool_use(functions, choice, parallel=parallel, name_field="name")


_SERVED = frozenset({"custom", *DEFINED})


class _Given:
    """A tool as it was given at a path of the body."""

    def __init__(self, at: str, given: Mapping[str, Any], searcher: Searcher, unknown: list[str] | None) -> None:
        self.at = at
        self.tool = convert(dict(given), GivenTool, at, unknown)
        self.kind = self.tool.type or "custom"
        self._searches = _WEB_SEARCH.fullmatch(self.kind) is not None and searcher.has("web")
        self.served = self._searches or self.kind in _SERVED
        if not self.served and _DATED.fullmatch(self.kind) is None and self.kind != "mcp_toolset":
            raise unserved_tool(self.kind, at)

    @property
    def name(self) -> str:
        return DEFINED[self.kind].name if self.kind in DEFINED else self.tool.name or ""

    def function(self, ignored: list[str]) -> Tool:
        tool, at = self.tool, self.at
        # The model sees a tool at once or not at all, and it alone calls it.
        ignored += [f"{at}.{name}" for name in ("input_examples", "max_characters") if getattr(tool, name)]
        if tool.defer_loading:
            ignored.append(f"{at}.defer_loading")
        if tool.allowed_callers and "direct" not in tool.allowed_callers:
            ignored.append(f"{at}.allowed_callers")
        if self._searches:
            return FUNCTIONS["web"]
        if self.kind in DEFINED:
            return DEFINED[self.kind]
        if tool.name is None or tool.input_schema is None:
            missing = f"{at}.{'name' if tool.name is None else 'input_schema'}"
            raise InvalidRequestError(f"You must provide the parameter: {missing}", param=missing)
        if _NAME.fullmatch(tool.name) is None:
            text = f"{at}.name must be 1 to 128 letters, digits, underscores or dashes, got '{tool.name[:128]}'"
            raise InvalidRequestError(text, param=f"{at}.name")
        if tool.input_schema.get("type", "object") != "object":
            raise InvalidRequestError(f"{at}.input_schema.type must be 'object'", param=f"{at}.input_schema.type")
        return Tool(tool.name, tool.description or "", {"type": "object", **tool.input_schema}, bool(tool.strict))


def _choice(choice: MessageToolChoice | None, tools: Sequence[_Given]) -> str | OneFunction | None:
    match choice:
        case None:
            return None
        case MessageToolChoice(type="any"):
            return "required"
        case MessageToolChoice(type="tool", name=name):
            if name is None:
                raise InvalidRequestError("You must provide the parameter: tool_choice.name", param="tool_choice.name")
            for tool in tools:
                if tool.name == name and not tool.served:
                    raise unserved_tool(tool.kind, tool.at)
            return OneFunction(name, "tool_choice.name")
        case MessageToolChoice(type=kind):
            return kind
