"""`/v1/messages`, Anthropic's API: its blocks as a conversation, its tools, the events of its streams, its errors and listings."""
