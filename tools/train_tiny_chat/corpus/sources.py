"""Answering from numbered sources of all kinds."""

from __future__ import annotations

from tools.train_tiny_chat.corpus.conversation import Example
from tools.train_tiny_chat.corpus.draw import Draw
from tools.train_tiny_chat.corpus.made_up_sources import events_task, made_up_task
from tools.train_tiny_chat.corpus.real_sources import docs_task, facts_task, searched_task


def sample(draw: Draw) -> Example:
    task = draw.one([made_up_task] * 6 + [events_task] * 4 + [facts_task] * 3 + [searched_task] * 2 + [docs_task] * 2)
    return task(draw).conversation
