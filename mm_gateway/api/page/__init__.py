"""The page for people at `/`: HTML, styles and plain modules from this folder, with headers that let nothing else run or load."""
