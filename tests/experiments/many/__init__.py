"""Of `experiments.many`."""
