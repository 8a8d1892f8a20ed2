"""Makes `tiny-chat`, the model that comes with the gateway: corpus, tokenizer, training, export and evaluation. See README.md here."""
