"""Of the algorithms."""
