"""Of `experiments.runs`."""
