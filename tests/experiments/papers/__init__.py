"""Of `experiments.papers`."""
