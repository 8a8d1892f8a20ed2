"""What `mm_gateway` promises to those who import it."""

from __future__ import annotations

import subprocess
import sys

import mm_gateway

PUBLIC = {
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
}


def test_the_public_names_are_these_and_each_can_be_imported() -> None:
    assert set(mm_gateway.__all__) == PUBLIC == set(dir(mm_gateway))
    assert all(getattr(mm_gateway, name) is not None for name in PUBLIC)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(mm_gateway, "Engine")


def test_importing_the_package_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, mm_gateway; print(sorted({'torch', 'transformers', 'litestar'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
