"""Items of `/v1/responses`: their ids, and from what a client sends to whole items."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from mm_gateway.api.responses.call_items import ITEM_TYPES
from mm_gateway.api.responses.given_items import (
    MAX_ID,
    GivenAction,
    GivenCall,
    GivenCompaction,
    GivenCustomCall,
    GivenFileSearch,
    GivenLocalShellOutput,
    GivenMessage,
    GivenOutput,
    GivenPatch,
    GivenPatchOutput,
    GivenReasoning,
    GivenReference,
    GivenShellOutput,
    GivenWebSearch,
    Parts,
)
from mm_gateway.api.responses.sealed_texts import Unseal
from mm_gateway.errors import InvalidRequestError, NotStoredError, UnsupportedParameterError
from mm_gateway.protocol.decoding import check_depth, convert
from mm_gateway.protocol.response_calls import (
    ApplyPatchCallItem,
    ApplyPatchCallOutputItem,
    CustomCallItem,
    CustomCallOutputItem,
    LocalShellCallItem,
    LocalShellCallOutputItem,
    ShellCallItem,
    ShellCallOutputItem,
    ToolCallItem,
    ToolOutputItem,
)
from mm_gateway.protocol.response_searches import FileSearchCallItem, SearchItem, WebSearchCallItem
from mm_gateway.protocol.responses import (
    CompactionItem,
    FunctionCallItem,
    FunctionCallOutputItem,
    InputAudio,
    InputFile,
    InputImage,
    InputText,
    Item,
    Media,
    MessageItem,
    OutputText,
    Part,
    ReasoningItem,
    ReasoningText,
    Refusal,
)

Kind = Literal["msg", "rs", "fc", "fco", "ctc", "ctco", "lsh", "lsho", "sh", "sho", "apc", "apco", "ws", "fs", "cmp"]

_RESPONSE_ID = re.compile(r"resp_[0-9a-f]{32}")
_ITEM_ID = re.compile(r"(?:msg|rs|fco?|ctco?|lsho?|sho?|apco?|ws|fs|cmp)_(?P<response>[0-9a-f]{32})[0-9a-f]{4,}")
_NOTES = frozenset({"internal_chat_message_metadata_passthrough"})
"""Fields of items in which Codex keeps notes of its own where its provider is called OpenAI."""
Given = TypeVar("Given", bound=msgspec.Struct)


class ItemIds:
    """Ids of one response and of the items that came with it. An item's id holds the response's, so that a reference finds it."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(16)
        self._count = 0

    @property
    def response(self) -> str:
        return f"resp_{self._token}"

    def new(self, kind: Kind) -> str:
        self._count += 1
        return f"{kind}_{self._token}{self._count:04x}"


def is_response_id(id: str) -> bool:
    return _RESPONSE_ID.fullmatch(id) is not None


def response_of(item_id: str) -> str | None:
    """The response that an item came with; None: no id of ours."""
    match = _ITEM_ID.fullmatch(item_id)
    return f"resp_{match['response']}" if match else None


def referenced(given: str | Sequence[Mapping[str, Any]] | None) -> set[str]:
    """Ids of the stored items that an input refers to."""
    entries = () if given is None or isinstance(given, str) else given
    return {entry["id"] for entry in entries if _kind(entry) == "item_reference" and isinstance(entry.get("id"), str)}


def has_encrypted(given: str | Sequence[Mapping[str, Any]] | None) -> bool:
    """Whether an input brings back what was encrypted."""
    entries = () if given is None or isinstance(given, str) else given
    return any(entry.get("encrypted_content") is not None for entry in entries)


def read_items(
    given: str | Sequence[Mapping[str, Any]],
    ids: ItemIds,
    stored: Mapping[str, Item],
    open: Unseal,
    *,
    media: bool = False,
    unknown: list[str] | None = None,
) -> list[Item]:
    """Whole items of a body's `input`.

    Args:
        ids: for items that came without. stored: those that the input refers to, as far as they were found.
        open: reads what was encrypted. media: the model may read more than text.
        unknown: as for `decode`.

    Raises:
        InvalidRequestError, UnsupportedParameterError: an item is wrong, or of a kind that is not served; `param` is its path.
        NotStoredError: a reference to nothing.
    """
    if isinstance(given, str):
        return [MessageItem(ids.new("msg"), "user", [InputText(given)])]
    read = _Reading(ids, stored, open, media, unknown)
    return [read.item(f"input[{index}]", entry) for index, entry in enumerate(given)]


def _kind(entry: Mapping[str, Any]) -> object:
    kind = entry.get("type")
    return kind if kind is not None else "message" if "role" in entry else "item_reference" if "id" in entry else "message"


_Kinds = Mapping[str, type[OutputText | Refusal | InputText | InputImage | InputFile | InputAudio]]
_ASSISTANTS: _Kinds = {"output_text": OutputText, "refusal": Refusal}
_TEXT: _Kinds = {"input_text": InputText}
_MEDIA: _Kinds = {**_TEXT, "input_image": InputImage, "input_file": InputFile, "input_audio": InputAudio}


class _Reading:
    """Makes items of the entries of one input; arguments as for `read_items`."""

    def __init__(self, ids: ItemIds, stored: Mapping[str, Item], open: Unseal, media: bool, unknown: list[str] | None) -> None:
        self._ids = ids
        self._open = open
        self._stored = stored
        self._unknown = unknown
        self._allowed = _MEDIA if media else _TEXT

    def item(self, at: str, entry: Mapping[str, Any]) -> Item:
        ids = self._ids
        match _kind(entry):
            case "message":
                message = self._convert(at, entry, GivenMessage)
                return MessageItem(
                    message.id or ids.new("msg"),
                    message.role,
                    self._parts(f"{at}.content", message.content, _ASSISTANTS if message.role == "assistant" else self._allowed),
                    message.status or "completed",
                )
            case "function_call":
                call = self._convert(at, entry, GivenCall)
                check_depth(f"{at}.arguments", call.arguments)
                status, group = call.status or "completed", call.namespace or msgspec.UNSET
                return FunctionCallItem(call.id or ids.new("fc"), call.call_id, call.name, call.arguments, status, group)
            case "function_call_output":
                result = self._convert(at, entry, GivenOutput)
                output = self._output(at, result.output)
                return FunctionCallOutputItem(result.id or ids.new("fco"), result.call_id, output, result.status or "completed")
            case "custom_tool_call" | "local_shell_call" | "shell_call" | "apply_patch_call":
                return self._call(at, entry)
            case "custom_tool_call_output" | "local_shell_call_output" | "shell_call_output" | "apply_patch_call_output":
                return self._result(at, entry)
            case "web_search_call" | "file_search_call":
                return self._search(at, entry)
            case "item_reference":
                reference = self._convert(at, entry, GivenReference)
                found = self._stored.get(reference.id)
                if found is None:
                    raise NotStoredError(
                        f"Item with id '{reference.id[:MAX_ID]}' not found. Items are not persisted when `store` is set to false. "
                        "Try again with `store` set to true, or remove this item from your input.",
                        param="input",
                    )
                return found
            case "reasoning":
                return self._thought(at, self._convert(at, entry, GivenReasoning))
            case "compaction":
                return self._compaction(at, self._convert(at, entry, GivenCompaction))
            case "compaction_trigger":
                raise InvalidRequestError(f"{at}: a compaction_trigger must be the final item of the input", param=at)
            case kind:
                raise UnsupportedParameterError(
                    f"Items of type '{str(kind)[:50]}' are not supported by this server, only 'message', 'reasoning', 'compaction', "
                    f"'item_reference', and calls with their outputs: {', '.join(map(repr, ITEM_TYPES.values()))}",
                    param=f"{at}.type",
                    code="unsupported_value",
                )

    def _call(self, at: str, entry: Mapping[str, Any]) -> ToolCallItem:
        ids = self._ids
        match _kind(entry):
            case "custom_tool_call":
                custom = self._convert(at, entry, GivenCustomCall)
                group = custom.namespace or msgspec.UNSET
                status = custom.status or "completed"
                return CustomCallItem(custom.id or ids.new("ctc"), custom.call_id, custom.name, custom.input, status, group)
            case "local_shell_call":
                shell = self._convert(at, entry, GivenAction)
                return LocalShellCallItem(shell.id or ids.new("lsh"), shell.call_id, shell.action, shell.status or "completed")
            case "shell_call":
                shell = self._convert(at, entry, GivenAction)
                return ShellCallItem(shell.id or ids.new("sh"), shell.call_id, shell.action, shell.status or "completed")
            case _:
                patch = self._convert(at, entry, GivenPatch)
                return ApplyPatchCallItem(patch.id or ids.new("apc"), patch.call_id, patch.operation, patch.status or "completed")

    def _result(self, at: str, entry: Mapping[str, Any]) -> ToolOutputItem:
        ids = self._ids
        match _kind(entry):
            case "custom_tool_call_output":
                result = self._convert(at, entry, GivenOutput)
                output = self._output(at, result.output)
                return CustomCallOutputItem(result.id or ids.new("ctco"), result.call_id, output, result.status or "completed")
            case "local_shell_call_output":
                printed = self._convert(at, entry, GivenLocalShellOutput)
                call_id = printed.call_id or printed.id
                if call_id is None:
                    raise InvalidRequestError(f"You must provide the parameter: {at}.call_id", param=f"{at}.call_id")
                own = printed.id if printed.call_id is not None else None
                return LocalShellCallOutputItem(own or ids.new("lsho"), call_id, printed.output, printed.status or "completed")
            case "shell_call_output":
                run = self._convert(at, entry, GivenShellOutput)
                status = run.status or "completed"
                return ShellCallOutputItem(run.id or ids.new("sho"), run.call_id, run.output, status, run.max_output_length)
            case _:
                applied = self._convert(at, entry, GivenPatchOutput)
                return ApplyPatchCallOutputItem(applied.id or ids.new("apco"), applied.call_id, applied.status, applied.output)

    def _output(self, at: str, given: str | Parts) -> str | list[InputText | Media]:
        if isinstance(given, str):
            return given
        parts = self._parts(f"{at}.output", given, self._allowed)
        return [part for part in parts if not isinstance(part, OutputText | Refusal)]

    def _search(self, at: str, entry: Mapping[str, Any]) -> SearchItem:
        """What was found is in the text that followed; the model does not read it again."""
        if _kind(entry) == "web_search_call":
            web = self._convert(at, entry, GivenWebSearch)
            return WebSearchCallItem(web.id or self._ids.new("ws"), web.action, web.status or "completed")
        files = self._convert(at, entry, GivenFileSearch)
        return FileSearchCallItem(files.id or self._ids.new("fs"), files.queries, files.status or "completed", files.results)

    def _thought(self, at: str, given: GivenReasoning) -> ReasoningItem:
        """With its text, which those who store nothing here bring back encrypted."""
        content, encrypted = given.content, given.encrypted_content
        if encrypted is not None:
            content = [ReasoningText(self._open(encrypted, param=f"{at}.encrypted_content", of="reasoning"))]
        return ReasoningItem(given.id or self._ids.new("rs"), given.summary, content, encrypted, given.status)

    def _compaction(self, at: str, given: GivenCompaction) -> CompactionItem:
        self._open(given.encrypted_content, param=f"{at}.encrypted_content", of="compaction")
        return CompactionItem(given.id or self._ids.new("cmp"), given.encrypted_content)

    def _parts(self, at: str, content: str | Sequence[Mapping[str, Any]], allowed: _Kinds) -> list[Part]:
        if isinstance(content, str):
            return [OutputText(content) if allowed is _ASSISTANTS else InputText(content)]
        parts: list[Part] = []
        for index, part in enumerate(content):
            kind = part.get("type")
            if kind is None:
                raise InvalidRequestError(f"You must provide the parameter: {at}[{index}].type", param=f"{at}[{index}].type")
            if kind not in tuple(allowed):  # a tuple: what a client sends need not be hashable
                message = f"Invalid value: '{str(kind)[:50]}'. Supported values are: {' and '.join(map(repr, allowed))}."
                if kind in ("input_text", "output_text", "refusal"):
                    raise InvalidRequestError(message, param=f"{at}[{index}].type", code="invalid_value")
                raise UnsupportedParameterError(message, param=f"{at}[{index}].type", code="unsupported_value")
            parts.append(self._convert(f"{at}[{index}]", part, allowed[kind]))
        return parts

    def _convert(self, at: str, entry: Mapping[str, Any], kind: type[Given]) -> Given:
        """Null is absence: frameworks send whole objects of theirs with every field in it."""
        return convert({name: value for name, value in entry.items() if value is not None and name not in _NOTES}, kind, at, self._unknown)
