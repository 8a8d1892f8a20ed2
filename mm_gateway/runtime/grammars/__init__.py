"""What clients send to be compiled as a grammar: measured first, then tried out in a process that may die of it. Knows no model."""
