"""What compare.py is made of: what is asked, servers side by side, what was measured as lines of a file, tables of them."""
