"""Level 0: every function that a backend brings, alone, on the subject's own arrays and with its own binding.

From outside: `checks` of each module, which checks/levels.py puts together. May import cases, judging, checks.outcomes.
"""
