"""Keys and values of running and kept sequences: slots on a CPU, blocks on a GPU, and the attention that reads them."""
