"""Compiles `native` into a shared library with the machine's C++ compiler; imports nothing but the standard library.

Each instruction set is a file compiled for it, chosen at run time, so one library runs on every processor of its architecture.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

_SOURCES = Path(__file__).parent / "native"
# No contraction: whether a product and a sum become one operation must not depend on how many rows a loop was compiled for.
_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off")
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vnni")
_AMX = [("amx/amx.cpp", _AVX512), ("amx/numbers.cpp", _AVX512)]
_TIMEOUT_S = 900  # of a busy machine; half a minute of computing on a quiet one


class CompilationError(RuntimeError):
    """There is no compiler, or it failed; the message says which and how."""


def library_name() -> str:
    """The file name of what these sources compile to here: other sources or flags have another one."""
    digest = hashlib.sha256(repr((_FLAGS, _units())).encode())
    for file in sorted(_SOURCES.rglob("*.*")):
        digest.update(file.read_bytes())
    return f"block_linear-{digest.hexdigest()[:16]}.so"


def compile_library(folder: Path) -> Path:
    """Compile into `folder`; takes seconds. Processes that do so at the same time do not disturb each other.

    Raises:
        CompilationError: no compiler, or it failed. OSError: the folder cannot be written.
    """
    compiler = find_compiler()
    target = folder / library_name()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".compiling-") as work:
        knows_amx = _knows_amx(compiler, Path(work))
        units = [unit for unit in _units() if unit not in _AMX or knows_amx]
        objects = [Path(work) / f"{index}.o" for index in range(len(units))]
        commands = [
            [compiler, *_FLAGS, *flags, "-c", str(_SOURCES / source), "-o", str(file)]
            for (source, flags), file in zip(units, objects, strict=True)
        ]
        _run(commands)
        linked = Path(work) / target.name
        _run([[compiler, "-shared", *map(str, objects), "-o", str(linked)]])
        linked.replace(target)
    return target


def _units() -> list[tuple[str, tuple[str, ...]]]:
    names = ("block_linear", "decoder", "model", "argmax", "threads", "portable", "float_kernels", "rows", "quantize")
    units: list[tuple[str, tuple[str, ...]]] = [(f"{name}.cpp", ()) for name in names]
    if platform.machine() in ("x86_64", "AMD64"):
        units += [("avx2.cpp", _AVX2), ("avx2.cpp", (*_AVX2, "-mavxvnni")), ("avx512_vnni.cpp", _AVX512)]
        units += [("float_kernels.cpp", _AVX2), ("float_kernels.cpp", _AVX512)]
        units += [("amx/trial.cpp", ()), *_AMX] if platform.system() == "Linux" else []
    return units


def _knows_amx(compiler: str, work: Path) -> bool:
    """Whether its assembler does; the other kernels are compiled without."""
    source = work / "knows_amx.cpp"
    source.write_text('void f() { asm volatile("tilerelease"); }\n')
    try:
        _run([[compiler, "-c", str(source), "-o", str(source.with_suffix(".o"))]])
    except CompilationError:
        return False
    return True


def find_compiler() -> str:
    """The C++ compiler: what CXX names, else the first of the usual ones.

    Raises:
        CompilationError: there is none.
    """
    named = os.environ.get("CXX")
    found = next((path for name in ([named] if named else ["g++", "clang++", "c++"]) if (path := shutil.which(name))), None)
    if found is None:
        raise CompilationError(f"no C++ compiler is installed ({named or 'g++ or clang++'})")
    return found


def _run(commands: list[list[str]]) -> None:
    """All at once, and each to its end."""
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for command in commands]
    failures: list[str] = []
    for process in running:
        try:
            output, _ = process.communicate(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        if process.returncode != 0:
            failures.append(f"{process.args[0]} failed: {output.strip()[:500]}")  # type: ignore[index]
    if failures:
        raise CompilationError(failures[0])
