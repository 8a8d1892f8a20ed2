"""HTTP: one module an endpoint, from events to bytes, from exceptions to statuses."""
