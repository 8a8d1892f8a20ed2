"""llama.cpp's server on a GGUF file, until its standard input ends: `llama_cpp_server.py FILE PORT`. Runs in the environment llama-cpp."""

from __future__ import annotations

import sys

import xllamacpp  # pyright: ignore[reportMissingImports] - not of this environment


def main() -> None:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = sys.argv[1]
    parameters.port = int(sys.argv[2])
    parameters.n_ctx = 1024
    parameters.n_parallel = 1
    # Its threads wait for each other in loops: on a machine that does other work, one alone is faster.
    parameters.cpuparams.n_threads = 1
    parameters.warmup = False
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    # 16-bit keys and values, its default, would hide differences below a hundredth.
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()


main()
