"""From events to bytes, streamed or folded: one class per endpoint holds all that its two forms of reply have in common."""
