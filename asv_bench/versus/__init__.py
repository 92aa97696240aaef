"""`make bench`: the working tree against a commit, both measured now, in turns.

From outside: the command, `python -m asv_bench.versus`. It knows of the package what `asv_bench.benchmarks` does.
"""
