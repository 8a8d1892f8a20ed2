"""One model at work: the step loop on its own thread, the forward pass, and the text of each choice."""
