"""Of `experiments.boxes`."""
