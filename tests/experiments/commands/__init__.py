"""Of `experiments.commands`."""
