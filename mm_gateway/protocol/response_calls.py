"""Items of `/v1/responses` for calls of tools that are no functions, and for their results."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class CustomCallItem(msgspec.Struct, tag_field="type", tag="custom_tool_call"):
    """`input`: the text that the tool gets."""

    id: str
    call_id: str
    name: str
    input: str
    status: ItemStatus = "completed"
    namespace: str | msgspec.UnsetType = msgspec.UNSET


class LocalShellCallItem(msgspec.Struct, tag_field="type", tag="local_shell_call"):
    """`action`: `{"type": "exec", "command", "env", "timeout_ms", "user", "working_directory"}`."""

    id: str
    call_id: str
    action: dict[str, Any]
    status: ItemStatus = "completed"


class ShellCallItem(msgspec.Struct, tag_field="type", tag="shell_call"):
    """`action`: `{"commands", "timeout_ms", "max_output_length"}`."""

    id: str
    call_id: str
    action: dict[str, Any]
    status: ItemStatus = "completed"


class ApplyPatchCallItem(msgspec.Struct, tag_field="type", tag="apply_patch_call"):
    """`operation`: `{"type": "create_file" | "update_file" | "delete_file", "path", "diff"}`."""

    id: str
    call_id: str
    operation: dict[str, Any]
    status: ItemStatus = "completed"


class CustomCallOutputItem(msgspec.Struct, tag_field="type", tag="custom_tool_call_output"):
    """`output`: a text, or parts."""

    id: str
    call_id: str
    output: Any
    status: ItemStatus = "completed"


class LocalShellCallOutputItem(msgspec.Struct, tag_field="type", tag="local_shell_call_output"):
    """`call_id` names the call; OpenAI's description has `id` in its place."""

    id: str
    call_id: str
    output: str
    status: ItemStatus = "completed"


class ShellCallOutputItem(msgspec.Struct, tag_field="type", tag="shell_call_output"):
    """`output`: of each command `{"stdout", "stderr", "outcome"}`."""

    id: str
    call_id: str
    output: list[dict[str, Any]]
    status: ItemStatus = "completed"
    max_output_length: int | None = None


class ApplyPatchCallOutputItem(msgspec.Struct, tag_field="type", tag="apply_patch_call_output"):
    id: str
    call_id: str
    status: Literal["completed", "failed"]
    output: str | None = None


ToolCallItem = CustomCallItem | LocalShellCallItem | ShellCallItem | ApplyPatchCallItem
ToolOutputItem = CustomCallOutputItem | LocalShellCallOutputItem | ShellCallOutputItem | ApplyPatchCallOutputItem
