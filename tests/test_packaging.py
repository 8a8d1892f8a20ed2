"""What leaves the repository: the wheel, and the Dockerfile."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mm_gateway.api.page.files import STATIC
from mm_gateway.runtime.kernels.compiling import library_name
from mm_gateway.runtime.kernels.library import library

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_with_its_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert archive.read("mm_gateway/config/models.yaml") == (ROOT / "config" / "models.yaml").read_bytes()
    templates = {f"mm_gateway/chat_templates/{name}.jinja" for name in ("qwen-chat", "chatml", "gpt2", "llama")}
    # The documentation is what search-qa answers from where nothing is indexed.
    assert names >= {
        "mm_gateway/main.py",
        "mm_gateway/config/gateway.yaml",
        "mm_gateway/README.md",
        "mm_gateway/docs/models.md",
        *templates,
        *(f"mm_gateway/api/page/static/{path.name}" for path in STATIC.iterdir()),
    }
    assert not any(name.startswith(("tests", "compat_tests", "benchmarks")) for name in names)


@pytest.mark.skipif(library() is None, reason="no C++ compiler")
def test_the_wheel_holds_the_compiled_kernels_for_every_python_of_this_system(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert f"mm_gateway/runtime/kernels/{library_name()}" in archive.namelist()
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")


def test_the_installed_wheel_finds_its_configuration_and_documentation(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import sys; sys.path.insert(0, 'site'); from mm_gateway.main import run; run(args=['models'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "qwen-7b-chat-int4" in done.stdout
    code = "import sys; sys.path.insert(0, 'site'); from mm_gateway.search import local; print(local.documentation_index().status())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
    assert "documents=0" not in done.stdout


def test_the_dockerfile_is_clean() -> None:
    done = subprocess.run([str(Path(sys.executable).parent / "hadolint"), str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
