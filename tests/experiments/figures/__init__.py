"""Of `experiments.figures`."""
