"""Of `experiments.data`."""
