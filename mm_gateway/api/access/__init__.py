"""Who may ask, and how much: keys, rate limits, and the bounds of the whole gateway."""
