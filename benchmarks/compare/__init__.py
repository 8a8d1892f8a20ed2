"""The gateway side by side with other servers: what is asked, taking turns, what was measured as lines of a file, tables of them."""
