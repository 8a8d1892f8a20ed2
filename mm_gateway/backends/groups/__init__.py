"""Several entries as one model: which member is asked is decided by pure code (`router` and what it uses), `backend` does it."""
