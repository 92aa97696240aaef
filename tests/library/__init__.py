"""Of the library: from types to algorithms."""
