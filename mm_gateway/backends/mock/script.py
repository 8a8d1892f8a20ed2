"""What the mock is to reply, from a file: texts and calls in turn, so that an agent can be led through a whole task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from mm_gateway.configuration.yaml_file import file_text, parsed
from mm_gateway.core import ChatInput, GenerationRequest, ToolUse
from mm_gateway.errors import ConfigurationError, InvalidRequestError
from mm_gateway.work_pools import ENCODING


class ScriptedCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call as it is written, whether or not its arguments fit the tool's schema. arguments: an object, or its JSON as text."""

    name: str
    arguments: dict[str, Any] | str = {}

    @property
    def json(self) -> str:
        if isinstance(self.arguments, str):
            return self.arguments
        return msgspec.json.encode(self.arguments).decode()


class ScriptedReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One reply: a text, calls, or a text and then calls. thought: comes before them."""

    thought: str = ""
    text: str = ""
    calls: tuple[ScriptedCall, ...] = ()


class Script:
    """The file of one entry of `models.yaml`, read anew for each request, so that it can be changed meanwhile.

    Raises:
        ConfigurationError: it cannot be read, or is no list of replies.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._read()

    async def reply_to(self, request: GenerationRequest) -> ScriptedReply | None:
        """The reply whose place in the list is the number of the conversation's assistant turns with calls; beyond its end, the last one.

        None where the request rules it out: it calls and the request has no tools, or does not while a call is required; the request
        prescribes another function or a grammar; or it is no chat.

        Raises:
            InvalidRequestError: it calls what the request does not have. ConfigurationError: as for the class.
        """
        if not isinstance(request.input, ChatInput) or request.config.grammar is not None:
            return None
        replies = await ENCODING.run(self._read)
        done = sum(bool(message.tool_calls) for message in request.input.messages)
        reply = replies[min(done, len(replies) - 1)]
        use = request.input.tools
        if use is None or use.shown_only:
            return None if reply.calls else reply
        if (use.required and not reply.calls) or (use.only is not None and {call.name for call in reply.calls} != {use.only}):
            return None
        _check_names(reply, use)
        return reply

    def _read(self) -> list[ScriptedReply]:
        try:
            given = parsed(file_text(self._path))
            replies = msgspec.convert([_as_reply(entry) for entry in given] if isinstance(given, list) else given, list[ScriptedReply])
        except OSError as error:
            raise ConfigurationError(f"script {self._path} cannot be read: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError, msgspec.ValidationError) as error:
            raise ConfigurationError(f"script {self._path} is no list of replies: {' '.join(str(error).split())}") from error
        if not replies:
            raise ConfigurationError(f"script {self._path} holds no reply")
        return replies


def _as_reply(entry: object) -> object | Mapping[str, object]:
    """A plain text is a reply too."""
    return {"text": entry} if isinstance(entry, str) else entry


def _check_names(reply: ScriptedReply, use: ToolUse) -> None:
    known = [tool.name for tool in use.tools]
    for call in reply.calls:
        if call.name not in known:
            raise InvalidRequestError(
                f"The mock's script calls {call.name}: the request has no such tool, only {', '.join(known)[:500]}", param="tools"
            )
