"""The mock: a model without weights for testing clients, deterministic and obedient to orders in the last message."""
