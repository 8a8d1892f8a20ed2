"""Which error the client gets for what went wrong in a step; the log gets the whole story."""

from __future__ import annotations

import logging

import torch

from mm_gateway.errors import OUT_OF_MEMORY_ADVICE, EngineError, GatewayError, InvalidRequestError, OutOfMemoryError
from mm_gateway.runtime.memory_errors import is_out_of_memory
from mm_gateway.runtime.scheduling.sequence import Sequence

logger = logging.getLogger(__name__)


def failed_forward(error: Exception, sequences: int) -> GatewayError:
    """For the requests of a step whose forward pass, or sampling, raised."""
    if is_out_of_memory(error):
        logger.error("out of memory in a forward pass of %d sequences", sequences)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # what the failed step left in pieces
        return OutOfMemoryError(f"Device memory ran out while generating. {OUT_OF_MEMORY_ADVICE}")
    logger.error("a forward pass of %d sequences failed", sequences, exc_info=error)
    return error if isinstance(error, GatewayError) else EngineError("The model failed while computing this request")


def failed_request(error: Exception) -> GatewayError:
    """For the one request in whose part of a step something raised."""
    if isinstance(error, GatewayError):
        return error
    logger.error("a request failed in the engine", exc_info=error)
    return EngineError("The engine failed while serving this request")


def no_tokens_left(seq: Sequence, param: str) -> InvalidRequestError:
    """For a request of which every token that may come next is barred. param: field of the grammar that it has to follow; "": none."""
    within = f" in {param}" if param else ""
    if seq.answer_len < seq.config.min_tokens:
        text = f"min_tokens: after {seq.answer_len} of {seq.config.min_tokens} tokens nothing but the end can follow{within}"
        return InvalidRequestError(text, param="min_tokens")
    return InvalidRequestError(f"bad_words: the output cannot go on without one of them{within}", param="bad_words")


def no_numbers() -> EngineError:
    """For a request whose logits or hidden states are NaN or infinite."""
    logger.error("NaN or infinite values; the request fails")
    return EngineError("The model computed NaN or infinite values for this request")
