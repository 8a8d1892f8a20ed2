"""What whoever runs the gateway asks of it and changes in it: `/admin`, behind an admin key."""
