"""Which families need help; another one is a module here and a row. Code outside asks this table only."""

from __future__ import annotations

import json
from pathlib import Path

from mm_gateway.runtime.checkpoints.families.family import Family
from mm_gateway.runtime.checkpoints.families.qwen_v1 import QWEN_V1

FAMILIES: dict[str, Family] = {family.name: family for family in (QWEN_V1,)}


def family_of(folder: Path) -> Family | None:
    """The family of a checkpoint; None where transformers serves it as it is, or its config.json cannot be read."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return next((family for family in FAMILIES.values() if isinstance(content, dict) and family.recognises(content)), None)
