"""Model families that transformers does not load by itself: one file a family, one row in its table."""
