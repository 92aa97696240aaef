"""What shows that the suite itself is right.

From outside: the programs `calibration` and `high_precision`. May import everything but reporting and commands.
"""
