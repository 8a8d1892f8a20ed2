"""Linear layers over 8-bit and 4-bit blocks of weights on a CPU: the format, the C++ kernels in `native`, compiling and calling them."""
