"""Of the backends, and that they agree."""
