"""Of the command `gpu`, on a CPU."""
