"""Tokens that are guessed ahead by a small model, and what may come behind guesses. scheduling/prompt_lookup.py looks up what repeats."""
