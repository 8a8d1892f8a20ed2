"""Compiles the kernels when the package is installed or its wheel is built; where there is no compiler it goes without them."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = Path("mm_gateway") / "runtime" / "kernels"


class CompileKernels(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        # By its path: the package's own dependencies are not there while it is built.
        spec = importlib.util.spec_from_file_location("compiling", root / KERNELS / "compiling.py")
        assert spec is not None and spec.loader is not None
        compiling = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(compiling)
        library = root / KERNELS / compiling.library_name()
        try:
            for old in (root / KERNELS).glob("block_linear-*.so"):
                if old != library:
                    old.unlink()
            if not library.is_file():
                compiling.compile_library(root / KERNELS)
        except (compiling.CompilationError, OSError) as error:
            self.app.display_warning(f"models will be slower on a CPU, and 8-bit and 4-bit weights take 16 bits there: {error}")
            return
        build_data["artifacts"].append(str(KERNELS / library.name))
        # The library calls nothing of Python, so it serves every version.
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
