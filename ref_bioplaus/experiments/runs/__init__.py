"""What a run leaves in its folder, and how it is continued.

From outside: `logs`, `checkpoints`, `headers`, `segments`, `folder`, `seeds`. May import spec, papers and data.
"""
