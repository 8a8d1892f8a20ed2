"""What outlives a restart: small records in SQLite, and conversations by session over them."""
