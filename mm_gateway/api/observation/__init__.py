"""What is known of each request: one record, made when it arrives, filled in on its way, handed to observers when its reply has ended."""
