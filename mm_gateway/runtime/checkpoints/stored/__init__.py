"""What the files of a checkpoint hold, read without loading a model: headers, types, tensors one at a time."""
