"""Writes checkpoints in the formats that quantizers publish, each from its layout and in numpy: no code is shared with what reads them."""
