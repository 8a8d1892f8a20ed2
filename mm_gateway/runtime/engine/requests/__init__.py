"""One request in the engine: its jobs, the texts that it becomes, and the events that come out."""
