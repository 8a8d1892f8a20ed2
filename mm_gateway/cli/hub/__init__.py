"""Commands for models as files and in memory: pull, list, rm, search, ps, show."""
