"""What a loaded checkpoint is: model, tokenizer and everything settled about them at load; knows nothing of how it was loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.chat_templates.found_formats import ChatFormats
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import GenerationConfig
from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.checkpoints.embedding_style import EmbeddingStyle

logger = logging.getLogger(__name__)

_TYPES = {"temperature": float, "top_p": float, "top_k": int, "min_p": float, "repetition_penalty": float}


@dataclass(frozen=True)
class GenerationDefaults:
    """Sampling parameters of the entry and of the checkpoint's generation_config.json, used where a request leaves them open; None: no
    opinion."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    @classmethod
    def of(cls, given: Mapping[str, object], model: str) -> GenerationDefaults:
        """Those that are numbers within their ranges. The others, such as NaN, are logged: no request has sent them. model: its name."""
        found: dict[str, Any] = {}
        for name, value in given.items():
            if value is None:
                continue
            try:
                msgspec.convert(value, _TYPES[name])
                GenerationConfig(**{name: value})  # type: ignore[arg-type]
                found[name] = value
            except (msgspec.ValidationError, InvalidRequestError) as error:
                logger.warning("%s: %s of generation_config.json is ignored: %s", model, name, error)
        return cls(**found)

    def complete(self, config: GenerationConfig) -> GenerationConfig:
        """`config` with its open parameters filled."""
        filled = {name: getattr(self, name) for name in _TYPES if getattr(config, name) is None and getattr(self, name) is not None}
        return msgspec.structs.replace(config, **filled) if filled else config


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for an engine.

    Attributes:
        model: in evaluation mode, on `device`; on a CPU its linear layers are packed.
        tokenizer: with pad token settled. dtype: of activations and of the KV cache.
        context_length: tokens, as configured and clamped to what the model can do.
        stop_token_ids: tokens that end a text. chat: renders conversations for it.
        weight_bytes: memory that parameters and packed weights take, the draft's included. embedding: how it embeds.
        formats: of its thoughts and calls. draft: guesses what it says.
        identity: of its files and how they were loaded (`checkpoint_identity`); None: it comes from no files.
    """

    config: ModelConfig
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    context_length: int
    stop_token_ids: frozenset[int]
    chat: ChatEncoder
    generation_defaults: GenerationDefaults
    weight_bytes: int
    embedding: EmbeddingStyle = field(default_factory=EmbeddingStyle)
    formats: ChatFormats = field(default_factory=ChatFormats)
    identity: bytes | None = None
    draft: LoadedModel | None = None

    @property
    def rounding(self) -> float:
        """How far logits of the same tokens may differ from one order of computation to another, in their standard deviations, where
        activations are not rounded to fewer bits."""
        if self.is_quantized_by_transformers:
            return 0.5  # kernels of bitsandbytes and gptqmodel, whose results depend on the rows that they compute together
        return 0.02 if self.dtype == torch.float32 else 0.2

    @property
    def is_quantized_by_transformers(self) -> bool:
        """Whether its layers are those of a package that transformers quantizes with, which lie on one device for good."""
        return getattr(self.model, "hf_quantizer", None) is not None
