"""Many Hugging Face models behind one OpenAI-compatible address.

The names below are the public Python API; everything else may change. They are imported when they are first used, because
torch and transformers take seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm_gateway.errors import GatewayError
    from mm_gateway.runtime.conversation import ConversationManager
    from mm_gateway.runtime.inference_engine import GenerationConfig, GenerationResult, InferenceEngine
    from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
    from mm_gateway.runtime.real_model_manager import RealModelManager
    from mm_gateway.workflows.chat_generate import ChatGenerateWorkflow
    from mm_gateway.workflows.lesson_pack import LessonPackWorkflow
    from mm_gateway.workflows.search_qa import SearchQAWorkflow

__version__ = "0.1.0"

__all__ = [
    "ChatGenerateWorkflow",
    "ConversationManager",
    "GatewayError",
    "GenerationConfig",
    "GenerationResult",
    "InferenceEngine",
    "LessonPackWorkflow",
    "ModelConfig",
    "ModelLoader",
    "RealModelManager",
    "SearchQAWorkflow",
    "__version__",
]

_MODULES = {
    "ChatGenerateWorkflow": "workflows.chat_generate",
    "ConversationManager": "runtime.conversation",
    "GatewayError": "errors",
    "GenerationConfig": "runtime.inference_engine",
    "GenerationResult": "runtime.inference_engine",
    "InferenceEngine": "runtime.inference_engine",
    "LessonPackWorkflow": "workflows.lesson_pack",
    "ModelConfig": "runtime.model_loader",
    "ModelLoader": "runtime.model_loader",
    "RealModelManager": "runtime.real_model_manager",
    "SearchQAWorkflow": "workflows.search_qa",
}


def __getattr__(name: str) -> Any:
    """A public name, with its module (https://peps.python.org/pep-0562/)."""
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'mm_gateway' has no attribute {name!r}")
    return getattr(import_module(f"mm_gateway.{module}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
