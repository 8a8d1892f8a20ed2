"""What the compiled call knows of transformers' model classes: families, their weights, their rotary positions."""
