"""`POST /v1/messages` and `/v1/messages/count_tokens`."""

from __future__ import annotations

import logging
import secrets

import msgspec
from litestar import post
from litestar.datastructures import State
from litestar.response.base import ASGIResponse

from mm_gateway.api.connection import HTTPRequest, while_connected
from mm_gateway.api.endpoint import Asked, receive, respond
from mm_gateway.api.messages.reply import MessageReply
from mm_gateway.api.messages.request import Given, chat_input, message_request
from mm_gateway.api.messages.signature import Signer
from mm_gateway.api.messages.tools import read_searches
from mm_gateway.api.tokens import tokenizing_backend
from mm_gateway.configuration.settings import StorageSettings
from mm_gateway.core import ChatInput
from mm_gateway.errors import StorageError
from mm_gateway.protocol.message_request import CountTokensRequest, MessageRequest
from mm_gateway.protocol.messages import MessageTokens
from mm_gateway.storage.installation_key import KEY_BYTES, installation_key
from mm_gateway.work_pools import STORAGE

logger = logging.getLogger(__name__)

_decoder = msgspec.json.Decoder(MessageRequest)
_count_decoder = msgspec.json.Decoder(CountTokensRequest)


class Signatures:
    """The signer, made on first use."""

    def __init__(self, settings: StorageSettings) -> None:
        self._place = settings.place("installation.key")
        self._signer: Signer | None = None

    async def signer(self) -> Signer:
        """One whose signatures nobody knows after a restart, where the key cannot be kept: that is no reason to refuse requests."""
        if self._signer is None:
            try:
                key = await STORAGE.run(installation_key, self._place, "thinking")
            except StorageError as error:
                logger.warning("%s; thoughts are signed with a key that ends with this process", error)
                key = secrets.token_bytes(KEY_BYTES)
            self._signer = self._signer or Signer(key)
        return self._signer


@post(
    "/v1/messages",
    status_code=200,
    summary="Continue a conversation, as Anthropic's API has it",
    description="Body: MessageRequest. With `stream: true` the reply is a stream of named server-sent events, from message_start to "
    "message_stop. Errors of this endpoint have Anthropic's envelope.",
)
async def create_message(request: HTTPRequest, state: State) -> ASGIResponse:
    received = await receive(request, state)
    signatures: Signatures = state.signatures
    signer = await signatures.signer()
    request_id: str = request.scope["state"]["request_id"]
    given = Given(signer, state.searcher, received.media, received.unknown)

    def asked(body: MessageRequest, ignored: list[str]) -> Asked:
        id = f"msg_{secrets.token_hex(12)}"
        generation = message_request(body, id, ignored, given)
        reply = MessageReply(
            id=id,
            model=body.model_name,
            request_id=request_id,
            max_tokens=body.max_tokens,
            signer=signer,
            shows_thoughts=body.thinking is None or body.thinking.display != "omitted",
        )
        searches = read_searches(body, given.searcher, ignored)
        return Asked(generation, reply, stream=bool(body.stream), searches=searches)

    return await respond(request, state, await received.read(_decoder, asked), received.ignored)


@post(
    "/v1/messages/count_tokens",
    status_code=200,
    summary="How many tokens a message would read",
    description="Body: as of POST /v1/messages, without what is about the reply. Nothing is generated, and weights are not loaded.",
)
async def count_message_tokens(request: HTTPRequest, state: State) -> MessageTokens:
    received = await receive(request, state)
    signatures: Signatures = state.signatures
    signer = await signatures.signer()
    given = Given(signer, state.searcher, received.media, received.unknown)

    def asked(body: CountTokensRequest, ignored: list[str]) -> tuple[str, ChatInput]:
        return body.model_name, chat_input(body, ignored, given)

    model, input = await received.read(_count_decoder, asked)
    found = await while_connected(request, tokenizing_backend(request, state, model).tokenize(input))
    return MessageTokens(len(found.ids))
