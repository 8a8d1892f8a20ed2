"""How far results are from those of full precision: precisions of weights, of keys and values, llama.cpp on the same weights."""
