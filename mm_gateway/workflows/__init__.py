"""Several steps that answer like one model, and the small framework they are written in: one file a workflow, one row in its table."""
