"""What the next step computes: sequences, the scheduler, and what it asks of an allocator; pure, without tensors."""
