"""What the hub says of models: a search, and the facts of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from huggingface_hub import HfApi
from huggingface_hub.hf_api import ExpandModelProperty_T, ModelInfo

from mm_gateway.hub.failures import hub_failures

_FORMATS = ("safetensors", "gguf", "gptq", "awq", "fp8", "mxfp4", "compressed-tensors", "bitsandbytes", "4-bit", "8-bit", "onnx", "mlx")
"""Tags of the hub that say how weights are stored."""
_FIELDS: list[ExpandModelProperty_T] = ["downloads", "likes", "gated", "safetensors", "gguf", "tags"]


@dataclass(frozen=True)
class HubModel:
    """A model on the hub.

    Attributes:
        downloads: of the last 30 days. parameters: None where the hub does not say. formats: of its weights. gated: its terms have to
            be accepted first.
    """

    name: str
    downloads: int
    likes: int
    parameters: int | None
    formats: tuple[str, ...]
    gated: bool


def search(words: str, *, limit: int, all_kinds: bool = False) -> Sequence[HubModel]:
    """Models whose names hold the words, the most downloaded first.

    Args:
        all_kinds: also those that are not tagged as generating text.

    Raises:
        DownloadError: the hub cannot be asked.
    """
    with hub_failures(f"searching {words!r}"):
        kind = None if all_kinds else "text-generation"
        return [*map(_model, HfApi().list_models(search=words, pipeline_tag=kind, sort="downloads", limit=limit, expand=_FIELDS))]


def look_up(name: str) -> HubModel:
    """One model.

    Raises:
        DownloadError: there is none, or the hub cannot be asked.
    """
    with hub_failures(name):
        return _model(HfApi().model_info(name, expand=_FIELDS))


def _model(info: ModelInfo) -> HubModel:
    tags = {tag.lower() for tag in info.tags or ()}
    parameters = info.safetensors.total if info.safetensors else (info.gguf or {}).get("total")
    return HubModel(
        info.id, info.downloads or 0, info.likes or 0, parameters, tuple(form for form in _FORMATS if form in tags), bool(info.gated)
    )
