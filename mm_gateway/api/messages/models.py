"""`GET /v1/models` as Anthropic's clients read it, in pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol import ModelCard
from mm_gateway.protocol.messages import MessageModel, MessageModelList

PAGE, MAX_PAGE = 20, 1000


def message_model(card: ModelCard) -> MessageModel:
    """A model of the other listing."""
    created = datetime.fromtimestamp(card.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return MessageModel(card.id, card.id, created, card.context_length, card.context_length)


def model_page(cards: Sequence[ModelCard], parameters: Mapping[str, str]) -> MessageModelList:
    """A page of models, by `limit`, `after_id` and `before_id`.

    Raises:
        InvalidRequestError: the limit is none, or there is no model of that id.
    """
    limit = parameters.get("limit", str(PAGE))
    if not limit.isdecimal() or not 1 <= int(limit[:8]) <= MAX_PAGE:
        raise InvalidRequestError(f"limit must be between 1 and {MAX_PAGE}, got '{limit[:20]}'", param="limit")
    models = [message_model(card) for card in cards]
    count = int(limit)
    if (before := parameters.get("before_id")) is not None:
        rest = models[: _place(models, before, "before_id")]
        page, more = rest[max(len(rest) - count, 0) :], len(rest) > count
    else:
        after = parameters.get("after_id")
        rest = models if after is None else models[_place(models, after, "after_id") + 1 :]
        page, more = rest[:count], len(rest) > count
    return MessageModelList(page, page[0].id if page else None, page[-1].id if page else None, more)


def _place(models: Sequence[MessageModel], id: str, param: str) -> int:
    found = next((place for place, model in enumerate(models) if model.id == id), None)
    if found is None:
        raise InvalidRequestError(f"{param}: there is no model with id '{id[:100]}'", param=param)
    return found
