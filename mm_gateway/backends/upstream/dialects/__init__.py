"""APIs other than chat that an upstream server may speak: a request in their words, and their streams as events."""
