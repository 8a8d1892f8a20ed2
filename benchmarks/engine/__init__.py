"""What is below the gateway, in this process and without HTTP: kernels, the engine, the manager of models."""
