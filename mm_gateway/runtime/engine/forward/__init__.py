"""How the tokens of a step go through the model: by its own modules, by CUDA graphs, or by one compiled call."""
