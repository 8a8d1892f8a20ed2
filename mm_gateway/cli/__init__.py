"""What the command line does: the server process and its HTTP protocol, the console, the index of files."""
