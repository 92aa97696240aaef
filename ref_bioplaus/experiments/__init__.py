"""The program around the library: data, training and comparison."""
