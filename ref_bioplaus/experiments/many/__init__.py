"""Many runs: side by side in processes, a paper's table, a search.

From outside: `jobs.run`, `table`, `side_by_side`, `search`. May import training, papers and what they stand on.
"""
