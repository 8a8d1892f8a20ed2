"""Tokens that are guessed ahead, by what repeats and by a small model, and what may come behind guesses."""
