"""What a remote model says of itself, whichever API its server speaks."""

from __future__ import annotations

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import ModelInfo


def remote_info(name: str, config: ModelConfig, created: int, state: str, **details: str) -> ModelInfo:
    """state: as its server told last. details: beside where it is served and what it is called there."""
    return ModelInfo(
        id=name,
        created=created,
        backend="remote",
        state=state,
        context_length=config.max_context_length,
        media=True,
        aliases=config.aliases,
        elsewhere=True,
        details={"base_url": config.base_url, "model_name": config.model_name, **details},
    )
