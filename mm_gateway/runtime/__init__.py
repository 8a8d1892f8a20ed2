"""Models in memory and at work. Its modules are the doors for programs; the rooms below them are one engine."""
