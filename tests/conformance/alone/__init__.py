"""Level 0, and where learning starts: what a backend brings of its own, and what is wrong with it, is found."""
