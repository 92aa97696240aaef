"""Speed and memory, tracked from commit to commit. Not installed: run from the repository's root."""
