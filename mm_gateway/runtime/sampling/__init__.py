"""From logits to tokens: penalties, noise by seed, and the grammars that an output follows."""
