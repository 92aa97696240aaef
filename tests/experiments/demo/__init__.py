"""Of `experiments.demo`."""
