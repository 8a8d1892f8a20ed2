"""What the built-in model knows of the gateway itself: what it is, how it is started, asked, configured and operated."""

from __future__ import annotations

from tools.train_tiny_chat.corpus.facts import read_facts

GATEWAY_FACTS = read_facts("gateway")
