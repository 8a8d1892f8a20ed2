"""`/v1/responses`: its items as a conversation, the events of its stream, and what it stores."""
