"""Whether the hub answers."""

from __future__ import annotations

import httpx
from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE, is_offline_mode


def hub_answers(timeout_s: float) -> str | None:
    """None where it does; else why not, in a few words. Asks nobody in offline mode."""
    if is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        reply = httpx.get(f"{ENDPOINT}/api/models", params={"limit": 1}, timeout=timeout_s, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return f"{ENDPOINT} does not answer: {str(error) or type(error).__name__}"
    return None if reply.status_code < 400 else f"{ENDPOINT} answers {reply.status_code}"


def hub_address() -> str:
    """Where it is; HF_ENDPOINT chooses another."""
    return ENDPOINT


def cache_folder() -> str:
    """Where downloads go; HF_HOME or HF_HUB_CACHE choose another."""
    return HF_HUB_CACHE
