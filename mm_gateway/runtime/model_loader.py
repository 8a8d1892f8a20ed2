"""Loads a checkpoint as a LoadedModel, and says clearly what failed where it cannot; knows nothing of caching, engines or HTTP."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import torch
import transformers
from transformers import AutoConfig, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from mm_gateway.chat_templates.found_formats import formats_of
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import Progress, ProgressCallback
from mm_gateway.errors import OUT_OF_MEMORY_ADVICE, GatewayError, ModelLoadError, OutOfMemoryError
from mm_gateway.freed_memory import give_back_memory
from mm_gateway.runtime.checkpoints.context_length import configured_length
from mm_gateway.runtime.checkpoints.draft import check_draft_tokens, draft_config
from mm_gateway.runtime.checkpoints.embedding_style import read_embedding_style
from mm_gateway.runtime.checkpoints.families.families import FAMILIES, family_of
from mm_gateway.runtime.checkpoints.files import checkpoint_folder
from mm_gateway.runtime.checkpoints.identity import checkpoint_identity
from mm_gateway.runtime.checkpoints.loaded_model import GenerationDefaults, LoadedModel
from mm_gateway.runtime.checkpoints.memory_estimate import MemoryNeed, estimate, with_draft
from mm_gateway.runtime.checkpoints.packing import weight_bytes
from mm_gateway.runtime.checkpoints.quantized.formats import format_of
from mm_gateway.runtime.checkpoints.stored.stored_dtype import stored_dtype
from mm_gateway.runtime.checkpoints.tokenizer import load_tokenizer
from mm_gateway.runtime.checkpoints.weights import read_model
from mm_gateway.runtime.memory_errors import is_out_of_memory
from mm_gateway.runtime.tokens.chat_encoding import chat_encoder_of
from mm_gateway.runtime.tokens.model_text import ModelText
from mm_gateway.runtime.tokens.stop_tokens import stop_token_ids_of

__all__ = ["LoadedModel", "ModelConfig", "ModelLoader"]

logger = logging.getLogger(__name__)

_DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class ModelLoader:
    """Loads models one at a time or several at once; keeps no state.

    Args:
        pack: on a CPU, replace linear layers by packed ones. False leaves the model as transformers makes it.
    """

    # transformers replaces methods of its own and torch's for the time of a from_pretrained, and two at once would leave the
    # replacements in place for good. Everything else of a load (download, packing, engine) runs beside other loads.
    _from_pretrained = threading.Lock()

    def __init__(self, *, pack: bool = True) -> None:
        self._pack = pack

    def prepare(
        self,
        config: ModelConfig,
        settings: EngineSettings,
        budget_of: Callable[[str], int | None],
        *,
        progress: ProgressCallback | None = None,
    ) -> tuple[str, MemoryNeed]:
        """Fetch the files; the device that the model will be on, and the memory it needs there, with a KV cache.

        Raises:
            ModelLoadError: what failed and what to try.
        """
        device = resolve_device(config.device)
        report = progress or (lambda _: None)
        folder, draft = checkpoint_folder(config, report), draft_config(config, device.type)
        draft_folder = checkpoint_folder(draft, report) if draft is not None else None
        try:
            need = estimate(folder, config, settings, device_type=device.type, budget_bytes=budget_of(str(device)))
            if draft is not None and draft_folder is not None:
                need = with_draft(need, folder, config, draft_folder, draft)
        except (OSError, ValueError, KeyError) as error:
            raise ModelLoadError(f"Failed to load {config.model_name}: {error}. Download the checkpoint again") from error
        return str(device), need

    def load(
        self, config: ModelConfig, *, progress: ProgressCallback | None = None, should_stop: Callable[[], bool] | None = None
    ) -> LoadedModel:
        """Find the files, read them, settle everything.

        Args:
            progress: told what happens, from this thread. should_stop: asked between stages; True abandons the load.

        Raises:
            ModelLoadError, OutOfMemoryError: what failed and what to try.
        """
        report = progress or (lambda _: None)
        try:
            return self._load(config, report, should_stop or (lambda: False))
        except GatewayError:
            raise
        except Exception as error:
            logger.debug("loading %s failed", config.model_name, exc_info=True)
            if is_out_of_memory(error):
                text = f"{config.model_name}: memory ran out while loading. {OUT_OF_MEMORY_ADVICE}"
                raise OutOfMemoryError(text) from error.with_traceback(None)
            raise ModelLoadError(
                f"Failed to load {config.model_name}: {type(error).__name__}: {str(error)[:500]}"
            ) from error.with_traceback(None)

    def _load(self, config: ModelConfig, progress: ProgressCallback, should_stop: Callable[[], bool]) -> LoadedModel:
        # A kernel from the hub would be a download, and code, that nobody asked for.
        os.environ.setdefault("USE_HUB_KERNELS", "0")
        _quiet()
        name = config.model_name
        device = resolve_device(config.device)
        folder = checkpoint_folder(config, progress)
        _check_stop(should_stop, name)
        progress(Progress("loading", f"{name}: reading the configuration"))
        config, checkpoint = _read_config(folder, config)
        identity = checkpoint_identity(folder, config)  # before the weights are read: if they change meanwhile, it is nobody's
        tokenizer = load_tokenizer(folder, name=name, trust_remote_code=config.trust_remote_code)
        if (draft := draft_config(config, device.type)) is not None:
            other = load_tokenizer(checkpoint_folder(draft, progress), name=draft.model_name, trust_remote_code=draft.trust_remote_code)
            check_draft_tokens(tokenizer, other, name=name, draft_name=draft.model_name)
        chat, stop_tokens = chat_encoder_of(tokenizer, checkpoint.model_type, config)
        formats = formats_of(chat.prompt)
        give_back_memory()  # reading a vocabulary takes twice what it leaves, which weights beside it would add to
        _check_stop(should_stop, name)
        progress(Progress("loading", f"{name}: reading the weights"))
        stated = getattr(checkpoint, "dtype", None)
        stored = stated if isinstance(stated, torch.dtype) else getattr(torch, stored_dtype(folder, {"dtype": stated}))
        dtype = stored if config.dtype == "auto" else _DTYPES[config.dtype]
        packed = format_of(folder, config).packed_as(dtype) if device.type == "cpu" else None
        if config.flash_attention:
            _check_flash_attention(device)
        model = read_model(
            folder,
            config,
            checkpoint,
            device,
            dtype,
            packed if self._pack else None,
            lambda: self._building(should_stop, name),
            lambda share: progress(Progress("loading", f"{name}: reading the weights", share)),
        )
        if packed is not None:
            dtype = torch.float32  # of activations
        context_length = _context_length(checkpoint, config)
        loaded_draft = self._load(draft, progress, should_stop) if draft is not None else None
        return LoadedModel(
            config=config,
            model=model,
            tokenizer=tokenizer,
            device=device,
            dtype=dtype,
            context_length=context_length,
            stop_token_ids=stop_token_ids_of(model, tokenizer, *stop_tokens),
            chat=chat,
            generation_defaults=_generation_defaults(model.generation_config, config),
            weight_bytes=weight_bytes(model) + (loaded_draft.weight_bytes if loaded_draft is not None else 0),
            embedding=read_embedding_style(folder, config),
            formats=formats,
            identity=identity,
            draft=loaded_draft,
        )

    @classmethod
    @contextmanager
    def _building(cls, should_stop: Callable[[], bool], name: str) -> Iterator[None]:
        with cls._from_pretrained:
            _check_stop(should_stop, name)  # it may have waited for long
            yield


def load_model_text(config: ModelConfig) -> ModelText:
    """The text side of a model, read without its weights.

    Raises:
        ModelLoadError: what failed and what to try.
    """
    try:
        _quiet()
        folder = checkpoint_folder(config, lambda _: None, weights=False)
        config, checkpoint = _read_config(folder, config)
        tokenizer = load_tokenizer(folder, name=config.model_name, trust_remote_code=config.trust_remote_code)
        chat, _ = chat_encoder_of(tokenizer, checkpoint.model_type, config)
        vocab_size = max(len(tokenizer), getattr(checkpoint.get_text_config(), "vocab_size", 0))
        return ModelText(tokenizer, chat, context_length=_context_length(checkpoint, config), vocab_size=vocab_size)
    except GatewayError:
        raise
    except Exception as error:
        raise ModelLoadError(f"Failed to load the tokenizer of {config.model_name}: {str(error)[:500]}") from error


def _read_config(folder: Path, config: ModelConfig) -> tuple[ModelConfig, transformers.PreTrainedConfig]:
    """The checkpoint's configuration, with the entry as it holds for this checkpoint."""
    family = family_of(folder)
    if family is not None:
        family.register()
        if config.trust_remote_code:
            config = msgspec.structs.replace(config, trust_remote_code=False)
        logger.info("%s: %s is served natively; no remote code is run", config.model_name, family.name)
    checkpoint = AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code, local_files_only=True)
    _check_architecture(checkpoint, config)
    return config, checkpoint


def resolve_device(device: str) -> torch.device:
    """`auto`, `cuda`, `cuda:N` or `cpu` as a device that is there.

    Raises:
        ModelLoadError: a GPU is asked for and not there.
    """
    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    resolved = torch.device(device)
    if resolved.type == "cuda":
        if not torch.cuda.is_available():
            raise ModelLoadError(
                f"device: {device} is configured, but torch finds no CUDA device. Use device: auto or cpu, or install torch for CUDA"
            )
        if (resolved.index or 0) >= torch.cuda.device_count():
            raise ModelLoadError(f"device: {device} is configured, but there are {torch.cuda.device_count()} CUDA devices")
        return torch.device("cuda", resolved.index or 0)
    return resolved


def _check_flash_attention(device: torch.device) -> None:
    from importlib.util import find_spec

    usable = device.type == "cuda" and find_spec("flash_attn") is not None and torch.cuda.get_device_capability(device) >= (8, 0)
    if not usable:
        logger.warning("FlashAttention not available, falling back to standard attention")


def _check_architecture(checkpoint: transformers.PreTrainedConfig, config: ModelConfig) -> None:
    architectures = getattr(checkpoint, "architectures", None) or []
    causal = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values(), *(name for family in FAMILIES.values() for name in family.architectures)}
    remote = config.trust_remote_code and getattr(checkpoint, "auto_map", None)
    if architectures and not causal.intersection(architectures) and not remote:
        raise ModelLoadError(
            f"{config.model_name}: its architecture {', '.join(architectures)} is no causal language model "
            "of transformers, so it cannot generate text"
        )


def _context_length(checkpoint: transformers.PreTrainedConfig, config: ModelConfig) -> int:
    """What is configured, clamped to the positions that the model was made for."""
    text = checkpoint.get_text_config()
    length = configured_length(lambda key: getattr(text, key, None), config)
    if config.max_context_length is not None and config.max_context_length > length:
        logger.warning("%s: max_context_length %d is clamped to the model's %d", config.model_name, config.max_context_length, length)
    return length


def _generation_defaults(stated: GenerationConfig | None, config: ModelConfig) -> GenerationDefaults:
    """What the entry says, else the checkpoint."""
    given: dict[str, object] = msgspec.structs.asdict(config.sampling)
    if stated is not None:
        # A checkpoint that does not ask for sampling has no opinion on its parameters: transformers' defaults are none.
        names = given if stated.do_sample else ("repetition_penalty",)
        given |= {name: getattr(stated, name) for name in names if given[name] is None}
    return GenerationDefaults.of(given, config.model_name)


def _check_stop(should_stop: Callable[[], bool], name: str) -> None:
    if should_stop():
        raise ModelLoadError(f"{name}: the load was abandoned, nobody waits for it any more", retryable=True)


def _quiet() -> None:
    transformers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
