"""The servers that a comparison starts, one module each: how it gets the model of the same weights, its command line, what it cannot do."""
