"""What the operator decides: typed settings, the files and variables they are read from, and API keys."""
