"""Level 0: a backend's own functions: how arrays come and go, how steps are run and what is promised of them.

From outside: `checks` of each module, which checks/levels.py puts together. May import cases, judging, checks.outcomes
and checks.alone.
"""
