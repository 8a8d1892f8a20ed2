"""Prefixes that left their slots, in memory and on disk: the blocks that they are cut into, their files, who may stay, and the way back."""
