"""`mm-gateway doctor`: looks at everything that a gateway needs before it is started, and says what to do."""
