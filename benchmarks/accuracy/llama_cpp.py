"""llama.cpp's own quantizers and logits through its C interface, for a process of its own: `llama_cpp.py quantize` or `logits FILE`.

Runs in the environment that compat_tests/environments/llama-cpp.txt makes, with nothing but numpy and xllamacpp, whose library exports
https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h. Both commands answer binary requests until standard input ends:

- quantize: a line `KIND ROWS COLUMNS` (KIND: number of a ggml_type), then rows * columns fp32; the answer is their blocks.
- logits: a line with the number of tokens, then int32 of a window, which is computed for itself; the answer is fp32 [tokens, vocabulary].
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
import xllamacpp  # pyright: ignore[reportMissingImports] - not of this environment


class _Parameters(ctypes.Structure):
    """A struct of parameters that llama.cpp fills with its defaults and takes back by value; at least as large as any of them."""

    _fields_ = (("bytes", ctypes.c_uint64 * 128),)


class _Batch(ctypes.Structure):
    """`struct llama_batch`; positions and sequences are left out, which means the next ones of sequence 0."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.c_void_p),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
    )


def _library() -> Any:
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    for name, result, arguments in (
        ("llama_log_set", None, (pointer, pointer)),
        ("llama_model_default_params", _Parameters, ()),
        ("llama_context_default_params", _Parameters, ()),
        ("llama_model_load_from_file", pointer, (ctypes.c_char_p, _Parameters)),
        ("llama_init_from_model", pointer, (pointer, _Parameters)),
        ("llama_set_n_threads", None, (pointer, ctypes.c_int32, ctypes.c_int32)),
        ("llama_model_get_vocab", pointer, (pointer,)),
        ("llama_vocab_n_tokens", ctypes.c_int32, (pointer,)),
        ("llama_get_memory", pointer, (pointer,)),
        ("llama_memory_clear", None, (pointer, ctypes.c_bool)),
        ("llama_decode", ctypes.c_int32, (pointer, _Batch)),
        ("llama_get_logits", pointer, (pointer,)),
        ("ggml_quantize_chunk", ctypes.c_size_t, (ctypes.c_int, pointer, pointer, size, size, size, pointer)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


_SILENCE = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda level, text, data: None)


def _quantize(library: Any) -> None:
    while line := sys.stdin.buffer.readline():
        kind, rows, columns = map(int, line.split())
        numbers = np.frombuffer(sys.stdin.buffer.read(4 * rows * columns), dtype=np.float32)
        blocks = np.empty(4 * rows * columns, dtype=np.uint8)
        count = library.ggml_quantize_chunk(kind, numbers.ctypes.data, blocks.ctypes.data, 0, rows, columns, None)
        sys.stdout.buffer.write(blocks[:count].tobytes())
        sys.stdout.buffer.flush()


def _logits(library: Any, file: str) -> None:
    library.llama_backend_init()
    library.ggml_backend_load_all()
    model = library.llama_model_load_from_file(file.encode(), library.llama_model_default_params())
    # The default context has 512 tokens, computed at once.
    context = library.llama_init_from_model(model, library.llama_context_default_params())
    # Its threads wait for each other in loops, which takes longer than one alone where others work on the machine.
    library.llama_set_n_threads(context, 1, 1)
    vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
    while line := sys.stdin.buffer.readline():
        count = int(line)
        tokens = np.frombuffer(sys.stdin.buffer.read(4 * count), dtype=np.int32).copy()
        wanted = np.ones(count, dtype=np.int8)
        library.llama_memory_clear(library.llama_get_memory(context), True)
        if library.llama_decode(context, _Batch(count, tokens.ctypes.data, None, None, None, None, wanted.ctypes.data)) != 0:
            raise SystemExit("llama_decode failed")
        values = ctypes.cast(library.llama_get_logits(context), ctypes.POINTER(ctypes.c_float))
        sys.stdout.buffer.write(np.ctypeslib.as_array(values, shape=(count, vocabulary)).tobytes())
        sys.stdout.buffer.flush()


def main() -> None:
    library = _library()
    library.llama_log_set(_SILENCE, None)
    if sys.argv[1] == "quantize":
        _quantize(library)
    else:
        _logits(library, sys.argv[2])


main()
