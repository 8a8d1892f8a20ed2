"""Greetings, thanks, moods, likes: short exchanges with a friendly answer."""

from __future__ import annotations

from tools.train_tiny_chat.corpus.facts import read_facts

SMALL_TALK = read_facts("small_talk")
