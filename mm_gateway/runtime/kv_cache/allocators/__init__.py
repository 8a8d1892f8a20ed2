"""Who holds which slot or block, and which prefixes are there already; pure, without tensors."""
