"""Of `experiments.spec`."""
