"""Of `experiments.training`."""
