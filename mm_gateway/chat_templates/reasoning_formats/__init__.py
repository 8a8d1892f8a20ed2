"""How models write their thoughts: one row a format, found from a checkpoint's chat template, and read out of streamed text."""
