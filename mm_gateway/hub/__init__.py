"""The Hugging Face hub through its own library: downloads with room on the disk checked first, what the local cache holds, errors in words.

Knows nothing of models in memory, torch or HTTP servers. huggingface_hub is imported with its modules, never with the package.
"""
