"""Which models are in memory: a pure state machine and eviction policy, and the held models that they decide about."""
