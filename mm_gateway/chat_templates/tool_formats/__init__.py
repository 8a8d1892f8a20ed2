"""How tools are written for a model and its calls read back: one file a format, one row in its table."""
