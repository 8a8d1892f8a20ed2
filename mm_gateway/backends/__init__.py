"""What answers to a model name: models of this machine, of other servers, and the mock."""
