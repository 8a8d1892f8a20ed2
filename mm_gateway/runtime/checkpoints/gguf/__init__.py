"""Models in one GGUF file: its head, and what the rest of a checkpoint's folder says in llama.cpp's words."""
