"""Between text and tokens: chat encoding, incremental decoding, and the tokens that end a text."""
