"""The workflows that are served; adding one is a file in this folder and a row here."""

from __future__ import annotations

from typing import Any

from mm_gateway.workflows.chat_generate import ChatGenerateWorkflow
from mm_gateway.workflows.lesson_pack import LessonPackWorkflow
from mm_gateway.workflows.search_qa import SearchQAWorkflow
from mm_gateway.workflows.workflow import Workflow

WORKFLOWS: dict[str, type[Workflow[Any]]] = {
    workflow.name: workflow for workflow in (SearchQAWorkflow, LessonPackWorkflow, ChatGenerateWorkflow)
}
