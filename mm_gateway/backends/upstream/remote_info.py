"""What a remote model says of itself, whichever API its server speaks."""

from __future__ import annotations

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import ModelInfo


def remote_info(name: str, config: ModelConfig, created: int, **details: str) -> ModelInfo:
    """details: beside where it is served and what it is called there."""
    return ModelInfo(
        id=name,
        created=created,
        backend="remote",
        context_length=config.max_context_length,
        media=True,
        aliases=config.aliases,
        elsewhere=True,
        details={"base_url": config.base_url, "model_name": config.model_name, **details},
    )
