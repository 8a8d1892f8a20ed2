"""Quantized weights as they are published: one file a format, one row in its table."""
