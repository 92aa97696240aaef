"""Of the benchmarks."""
