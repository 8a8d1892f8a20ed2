"""What a CPU computes by the C++ in `native`: linear layers of 4 to 32 bits, whole decoders of a known shape; compiling and calling it."""
