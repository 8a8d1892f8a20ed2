"""From messages to a model's prompt: built-in templates, and encoding that no text of a message can break."""
