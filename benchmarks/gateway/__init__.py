"""What the gateway itself costs, beside a bare application, its own engine, and itself without metrics; and whether it lasts."""
