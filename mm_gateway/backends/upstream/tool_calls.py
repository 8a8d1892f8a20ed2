"""Which call of a choice a streamed piece belongs to; servers number them by index, by id, by neither, or by an index that is always 0."""

from __future__ import annotations

import msgspec

from mm_gateway.backends.tool_calls import new_call_id
from mm_gateway.backends.upstream.protocol import Function, ToolCall
from mm_gateway.core import ToolCallDelta


class _Call:
    """number: counts the calls of the choice. last: character of its arguments so far, "" where there are none."""

    def __init__(self, number: int, piece: ToolCall) -> None:
        self.number = number
        self.index = piece.index
        self.id = piece.id or None
        self.name: str | None = None
        self.last = ""


class CallReader:
    """The calls of one choice. choice: its index. last: number of the call that the last piece belongs to, None before it has a name."""

    def __init__(self, choice: int) -> None:
        self.last: int | None = None
        self._choice = choice
        self._calls: list[_Call] = []

    def read(self, piece: ToolCall) -> ToolCallDelta | None:
        """The next piece of a call; None where it says nothing yet.

        Raises:
            ValueError: arguments came before the name of their function.
        """
        function = piece.function or Function()
        arguments = function.arguments if isinstance(function.arguments, str) else _as_json(function.arguments)
        call = self._known(piece, function.name or None, arguments)
        if call is None:
            call = _Call(len(self._calls), piece)
            self._calls.append(call)
        begins = call.name is None and bool(function.name)
        if begins:
            call.name = function.name
            call.id = call.id or piece.id or new_call_id()
        self.last = None if call.name is None else call.number
        if call.name is None:
            if arguments:
                raise ValueError("arguments of a tool call before its name")
            return None
        call.last = arguments.rstrip()[-1:] or call.last
        if not (begins or arguments):
            return None
        # A name that is repeated with every piece would read as another call.
        return ToolCallDelta(self._choice, call.number, arguments, call.id if begins else None, call.name if begins else None)

    def _known(self, piece: ToolCall, name: str | None, arguments: str) -> _Call | None:
        """The call that the piece goes on with; None: it begins one. Rules 1 to 4, the first that decides."""
        if not self._calls:
            return None
        # 1. An id that came before.
        if piece.id and (named := next((call for call in self._calls if call.id == piece.id), None)) is not None:
            return named
        # 2. The newest call of the index, of all where there is none: indices may be missing, or all 0.
        same = [call for call in self._calls if call.index == piece.index] if piece.index is not None else self._calls
        call = same[-1] if same else None
        if call is None or call.name is None or name is None:
            return call  # without a name it begins nothing, though it may have an id: vLLM once made one up for every piece
        # 3. Another name or another id: another call.
        if name != call.name or (piece.id and call.id != piece.id):
            return None
        # 4. Name without an id, which some repeat: it begins a call where the arguments of the last one are whole. `}{` is no JSON.
        return None if call.last == "}" and arguments.lstrip()[:1] == "{" else call


def _as_json(arguments: object) -> str:
    """Some servers send the object itself."""
    return msgspec.json.encode(arguments).decode() if arguments is not None else ""
